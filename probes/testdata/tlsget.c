// tlsget LIBSSL HOST PORT ID: sends a request and reads the answer until its end, by
// functions that OpenSSL since 1.1.0 and BoringSSL have alike.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void *lib;

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s failed\n", what);
		exit(1);
	}
}

static void *function(const char *name)
{
	void *f = dlsym(lib, name);

	must(f != NULL, name);
	return f;
}

int main(int argc, char **argv)
{
	must(argc == 5, "usage: tlsget LIBSSL HOST PORT ID");
	lib = dlopen(argv[1], RTLD_NOW);
	must(lib != NULL, dlerror());
	const void *(*method)(void) = function("TLS_client_method");
	void *(*ctx_new)(const void *) = function("SSL_CTX_new");
	void *(*new)(void *) = function("SSL_new");
	int (*set_fd)(void *, int) = function("SSL_set_fd");
	int (*connect_tls)(void *) = function("SSL_connect");
	int (*write)(void *, const void *, int) = function("SSL_write");
	int (*read)(void *, void *, int) = function("SSL_read");
	void (*free)(void *) = function("SSL_free");

	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	int fd = socket(AF_INET, SOCK_STREAM, 0), n;
	void *ssl = new(ctx_new(method()));
	char buf[1000];

	must(inet_pton(AF_INET, argv[2], &to.sin_addr) == 1, "inet_pton");
	must(!connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
	must(set_fd(ssl, fd) == 1 && connect_tls(ssl) == 1, "SSL_connect");
	n = snprintf(buf, sizeof(buf), "POST /v1/x?until-close&id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", argv[4]);
	must(write(ssl, buf, n) == n, "SSL_write");
	while ((n = read(ssl, buf, 7)) > 0)
		fwrite(buf, 1, n, stdout);
	must(n == 0, "SSL_read");
	free(ssl);
	return 0;
}
