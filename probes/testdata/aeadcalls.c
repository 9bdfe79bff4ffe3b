// aeadcalls LIBSSL WAY HOST PORT ID: a request over TLS as runtimes make it that own
// their sockets: what was sealed into memory is sent, and what was read is opened,
// whenever and on whichever thread. By functions that BoringSSL and OpenSSL since 1.1.0
// have alike.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY (1 << 20)

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s failed\n", what);
		exit(1);
	}
}

static void *lib;

static void *function(const char *name)
{
	void *f = dlsym(lib, name);

	must(f != NULL, name);
	return f;
}

static int (*bio_read)(void *, void *, int);
static int (*bio_write)(void *, const void *, int);
static int (*ssl_do_handshake)(void *);
static int (*ssl_read)(void *, void *, int);
static int (*ssl_write)(void *, const void *, int);
static int (*ssl_shutdown)(void *);
static void (*ssl_free)(void *);

struct conn {
	int fd;
	void *ssl, *in, *out;
};

static struct conn new_conn(char **argv)
{
	static void *ctx;
	const void *(*method)(void) = function("TLS_client_method");
	void *(*ctx_new)(const void *) = function("SSL_CTX_new");
	void *(*new)(void *) = function("SSL_new");
	void (*set_connect_state)(void *) = function("SSL_set_connect_state");
	const void *(*memory)(void) = function("BIO_s_mem");
	void *(*bio_new)(const void *) = function("BIO_new");
	void (*set_bio)(void *, void *, void *) = function("SSL_set_bio");
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4]))};
	int small = 64 << 10, large = 400 << 10;
	struct conn c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};

	if (!ctx)
		ctx = ctx_new(method());
	must(inet_pton(AF_INET, argv[3], &to.sin_addr) == 1, "inet_pton");
	must(!setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), "SO_SNDBUF");
	must(!setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large)), "SO_RCVBUF");
	must(!connect(c.fd, (struct sockaddr *)&to, sizeof(to)), "connect");
	c.ssl = new(ctx);
	c.in = bio_new(memory());
	c.out = bio_new(memory());
	set_bio(c.ssl, c.in, c.out);
	set_connect_state(c.ssl);
	return c;
}

static char out[2 * BODY], in[BODY];
static int sealed; // bytes in out

static void take(struct conn c)
{
	int n = bio_read(c.out, out, sizeof(out));

	sealed = n > 0 ? n : 0;
}

static bool by_messages;      // by sendmmsg and recvmmsg
static bool rest_by_messages; // what the socket does not take at once

static int move(int (*call)(int, struct mmsghdr *, int), int fd, char *at, int n)
{
	struct iovec bytes = {at, n};
	struct mmsghdr message = {.msg_hdr = {.msg_iov = &bytes, .msg_iovlen = 1}};

	return call(fd, &message, 1) == 1 ? (int)message.msg_len : -1;
}

static int send_messages(int fd, struct mmsghdr *m, int n)
{
	return sendmmsg(fd, m, n, 0);
}

static int receive_messages(int fd, struct mmsghdr *m, int n)
{
	return recvmmsg(fd, m, n, 0, NULL);
}

static void *send_taken(void *fd)
{
	int to = *(int *)fd;

	for (int at = 0, n; at < sealed; at += n) {
		if (rest_by_messages && !at)
			n = send(to, out, sealed, MSG_DONTWAIT);
		else if (by_messages || rest_by_messages)
			n = move(send_messages, to, out + at, sealed - at);
		else
			n = write(to, out + at, sealed - at);
		must(n > 0, "sending");
		must(!rest_by_messages || n < sealed, "sending more than the socket takes at once");
	}
	return NULL;
}

static void flush(struct conn c)
{
	take(c);
	send_taken(&c.fd);
}

static int receive(struct conn c)
{
	int n = by_messages ? move(receive_messages, c.fd, in, sizeof(in)) : read(c.fd, in, sizeof(in));

	must(n >= 0, "receiving");
	if (n > 0)
		must(bio_write(c.in, in, n) == n, "BIO_write");
	return n;
}

// Leaves what the handshake says last in memory.
static void shake_hands(struct conn c)
{
	while (ssl_do_handshake(c.ssl) != 1) {
		flush(c);
		must(receive(c) > 0, "the handshake");
	}
}

static void seal(struct conn c, const char *text, int n)
{
	must(ssl_write(c.ssl, text, n) == n, "SSL_write");
}

static void seal_request(struct conn c, const char *id, int body)
{
	// No two of less than eight bytes: they might be encrypted alike.
	static const int sizes[] = {1, 14, 15, 16, 17, 31, 100, 1000, 16384, 16400};
	char *text = malloc(body), head[200];
	int n = snprintf(head, sizeof(head), "POST /v1/x?id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", id, body);

	for (int i = 0; i < body; i++)
		text[i] = 'a' + i % 26;
	seal(c, head, n);
	for (int i = 0, at = 0; at < body; at += n, i++) {
		n = i < 10 ? sizes[i] : body;
		if (n > body - at)
			n = body - at;
		seal(c, text + at, n);
	}
	free(text);
}

// Reads until the answer's last word.
static void read_answer(struct conn c)
{
	static char text[BODY];
	int have = 0, n;

	while (have < 4 || memcmp(text + have - 4, "end.", 4)) {
		n = ssl_read(c.ssl, text + have, sizeof(text) - have);
		if (n > 0)
			have += n;
		else
			must(receive(c) > 0, "the answer");
	}
}

static void hang_up(struct conn c)
{
	ssl_shutdown(c.ssl);
	flush(c);
	ssl_free(c.ssl);
	close(c.fd);
}

static void end(struct conn c)
{
	char last;

	ssl_shutdown(c.ssl);
	flush(c);
	while (receive(c) > 0)
		;
	must(ssl_read(c.ssl, &last, 1) <= 0, "the end");
	ssl_free(c.ssl);
	close(c.fd);
}

static void one_request(struct conn c, const char *id, int body)
{
	seal_request(c, id, body);
	flush(c);
	read_answer(c);
}

static atomic_int returned;

static void *send_and_tell(void *fd)
{
	send_taken(fd);
	returned = 1;
	return NULL;
}

// Another thread is in the write of the request when its answer is read.
static void early_answer(struct conn c, const char *id)
{
	pthread_t sender;

	seal_request(c, id, BODY);
	take(c);
	must(!pthread_create(&sender, NULL, send_and_tell, &c.fd), "pthread_create");
	read_answer(c);
	must(!returned, "answering before the write returned");
	puts("answered"); // the server waits for this
	fflush(stdout);
	must(!pthread_join(sender, NULL), "pthread_join");
}

// The answer's records are read by one call.
static void many_records(struct conn c, const char *id, int bytes)
{
	int waiting = 0;

	seal_request(c, id, 10);
	flush(c);
	while (waiting < bytes)
		must(!ioctl(c.fd, FIONREAD, &waiting), "FIONREAD");
	read_answer(c);
}

int main(int argc, char **argv)
{
	must(argc >= 6, "usage: aeadcalls LIBSSL WAY HOST PORT ID");
	alarm(30);
	lib = dlopen(argv[1], RTLD_NOW);
	must(lib != NULL, "dlopen");
	bio_read = function("BIO_read");
	bio_write = function("BIO_write");
	ssl_do_handshake = function("SSL_do_handshake");
	ssl_read = function("SSL_read");
	ssl_write = function("SSL_write");
	ssl_shutdown = function("SSL_shutdown");
	ssl_free = function("SSL_free");

	const char *way = argv[2];
	struct conn c = new_conn(argv);
	char id[100], next[110];

	snprintf(id, sizeof(id), "%s", argv[5]);
	snprintf(next, sizeof(next), "%s-next", id);
	shake_hands(c);
	if (!strcmp(way, "early-first")) {
		early_answer(c, id);
		end(c);
		return 0;
	}
	flush(c);
	if (!strcmp(way, "plain")) {
		one_request(c, id, 40000);
	} else if (!strcmp(way, "updated")) {
		int (*key_update)(void *, int) = function("SSL_key_update");

		one_request(c, id, 40000);
		must(key_update(c.ssl, 1) == 1, "SSL_key_update");
		one_request(c, next, 40000);
	} else if (!strcmp(way, "early")) {
		one_request(c, id, 10);
		early_answer(c, next);
	} else if (!strcmp(way, "many") || !strcmp(way, "many-last")) {
		must(argc == 7, "usage: aeadcalls LIBSSL many HOST PORT ID BYTES");
		many_records(c, id, atoi(argv[6]));
		if (!strcmp(way, "many-last")) {
			hang_up(c);
			return 0;
		}
		one_request(c, next, 10);
	} else if (!strcmp(way, "messages") || !strcmp(way, "messages-last")) {
		one_request(c, id, 10);
		by_messages = true;
		one_request(c, "by-messages", 10);
		by_messages = false;
		if (!strcmp(way, "messages-last")) {
			hang_up(c);
			return 0;
		}
		one_request(c, next, 10);
	} else if (!strcmp(way, "rest")) {
		one_request(c, id, 10);
		rest_by_messages = true;
		one_request(c, "rest-by-messages", BODY);
		rest_by_messages = false;
		one_request(c, next, 10);
	} else if (!strcmp(way, "dropped")) {
		struct conn other = new_conn(argv);

		shake_hands(other);
		flush(other);
		seal_request(other, "never-sent", 10);
		take(other); // and forgotten
		ssl_free(other.ssl);
		close(other.fd);
		for (int i = 0; i < 60; i++) // more records than may wait
			one_request(c, id, 40000);
	} else {
		must(0, way);
	}
	end(c);
	return 0;
}
