// Calls the machine's SSL_write and SSL_read over memory BIOs, in one process, as
// often as each line of its input says: "LOAD SIZE CALLS". With the load "exchange"
// requests to a model and their answers take turns, which a tap takes whole; with
// "ignored" a download goes by that no tap takes. It answers with the nanoseconds of this
// thread's CPU time that one SSL_write and one SSL_read took together.
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
	static char out[1 << 14], in[1 << 14];
	static const char get[] = "GET /file HTTP/1.1\r\n\r\n", post[] = "POST /v1/chat/completions HTTP/1.1\r\n",
			  ok[] = "HTTP/1.1 200 OK\r\n";
	SSL_CTX *clients = SSL_CTX_new(TLS_client_method()), *servers = server_context();
	char load[16], line[64];
	int size, calls;

	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%15s %d %d", load, &size, &calls) == 3) {
		struct pair p = connected(clients, servers);
		SSL *from = p.client, *to = p.server;
		long began;

		must(size >= 64 && size <= (int)sizeof(out) && calls > 0, "reading a line");
		memset(out, '.', size);
		if (!strcmp(load, "ignored")) {
			must(SSL_write(from, get, sizeof(get) - 1) > 0, "SSL_write");
			must(SSL_read(to, in, sizeof(in)) > 0, "SSL_read");
			from = p.server;
			to = p.client;
		}
		began = now();
		for (int i = 0; i < calls; i++) {
			if (!strcmp(load, "exchange")) {
				from = i % 2 ? p.server : p.client;
				to = i % 2 ? p.client : p.server;
				if (i % 2)
					memcpy(out, ok, sizeof(ok) - 1);
				else
					memcpy(out, post, sizeof(post) - 1);
			}
			must(SSL_write(from, out, size) == size, "SSL_write");
			must(SSL_read(to, in, size) == size, "SSL_read");
		}
		printf("%ld\n", (now() - began) / calls);
		fflush(stdout);
		free_pair(p);
	}
	return 0;
}
