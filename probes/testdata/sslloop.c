// Calls the machine's SSL_write and SSL_read over memory BIOs, in one process, as
// often as each line of its input says: "LOAD SIZE CALLS FILL". With the load "exchange"
// requests to a model and their answers take turns, which a tap takes whole; with
// "ignored" a download goes by that no tap takes. All is filled with FILL, over and over. It
// answers with the nanoseconds of this thread's CPU time that one SSL_write and one
// SSL_read took together.
#include <time.h>
#include "sslpair.h"

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(void)
{
	static char request[1 << 14], answer[1 << 14], in[1 << 14];
	static const char get[] = "GET /file HTTP/1.1\r\n\r\n", post[] = "POST /v1/chat/completions HTTP/1.1\r\n",
			  ok[] = "HTTP/1.1 200 OK\r\n";
	SSL_CTX *clients = SSL_CTX_new(TLS_client_method()), *servers = server_context();
	char load[16], fill[16], line[64];
	int size, calls;

	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%15s %d %d %15s", load, &size, &calls, fill) == 4) {
		struct pair p = connected(clients, servers);
		int exchange = !strcmp(load, "exchange");
		long began;

		must(size >= 64 && size <= (int)sizeof(in) && calls > 0, "reading a line");
		for (int i = 0; i < size; i++)
			request[i] = answer[i] = fill[i % strlen(fill)];
		if (exchange) {
			memcpy(request, post, sizeof(post) - 1);
			memcpy(answer, ok, sizeof(ok) - 1);
		} else {
			must(SSL_write(p.client, get, sizeof(get) - 1) > 0, "SSL_write");
			must(SSL_read(p.server, in, sizeof(in)) > 0, "SSL_read");
		}
		began = now();
		for (int i = 0; i < calls; i++) {
			int asks = exchange && i % 2 == 0;

			must(SSL_write(asks ? p.client : p.server, asks ? request : answer, size) == size, "SSL_write");
			must(SSL_read(asks ? p.server : p.client, in, size) == size, "SSL_read");
		}
		printf("%ld\n", (now() - began) / calls);
		fflush(stdout);
		free_pair(p);
	}
	return 0;
}
