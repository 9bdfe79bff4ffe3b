// A program with an OpenSSL of its own that sends nothing: what a tap needs are its
// functions' names. In the second version, other code stands where they were in the first.
#include <stdio.h>
#include <string.h>

static char session[64];

#ifdef SECOND
__attribute__((noinline)) unsigned count(void) {
	unsigned n = 0;
	__asm__ volatile(".rept 2000\n\taddl $1, %0\n\t.endr" : "+r"(n));
	return n;
}
#else
__attribute__((noinline)) unsigned count(void) { return 2000; }
#endif

__attribute__((noinline)) int SSL_write(void *ssl, const void *buf, int n) {
	__asm__ volatile("" ::"r"(ssl), "r"(buf) : "memory");
	return n;
}

__attribute__((noinline)) int SSL_read(void *ssl, void *buf, int n) {
	__asm__ volatile("" ::"r"(ssl), "r"(buf) : "memory");
	return n;
}

int main(int argc, char **argv) {
	static char request[256], answer[256];
	if (argc < 2)
		return 2;
	if (argc > 2) // to be found first: goes on when nobody has its input open to write any more
		while (getchar() != EOF)
			;
	unsigned counted = count();
	int n = snprintf(request, sizeof request, "POST /v1/x?id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", argv[1]);
	SSL_write(session, request, n);
	n = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\nanswer to %s", strlen(argv[1]) + 10, argv[1]);
	SSL_read(session, answer, n);
	printf("counted to %u\n", counted);
}
