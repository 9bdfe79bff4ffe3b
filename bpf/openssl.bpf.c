// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// OpenSSL's SSL_read, SSL_write and their _ex twins, in libssl or linked into an
// executable, and BoringSSL's where they have names. What a call did is known at its
// return alone: a write that is retried after WANT_WRITE, or taken in part, must count
// once.
#include "tls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("uprobe/SSL_read")
int openssl_read(struct pt_regs *ctx)
{
	return (__s32)ARG3(ctx) > 0 ? read_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), 0) : 0;
}

SEC("uprobe/SSL_write")
int openssl_write(struct pt_regs *ctx)
{
	return write_enter(FRAME(ctx), SOURCE_OPENSSL, ARG1(ctx), ARG2(ctx), (__s32)ARG3(ctx), 0);
}

SEC("uprobe/SSL_read_ex")
int openssl_read_ex(struct pt_regs *ctx)
{
	return ARG3(ctx) ? read_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), ARG4(ctx)) : 0;
}

SEC("uprobe/SSL_write_ex")
int openssl_write_ex(struct pt_regs *ctx)
{
	return write_enter(FRAME(ctx), SOURCE_OPENSSL, ARG1(ctx), ARG2(ctx), ARG3(ctx), ARG4(ctx));
}

// SSL_sendfile has the kernel read the file and encrypt it (kTLS).
SEC("uprobe/SSL_sendfile")
int openssl_sendfile(struct pt_regs *ctx)
{
	return write_enter(FRAME(ctx), SOURCE_OPENSSL, ARG1(ctx), 0, 0, 0);
}

#define SSL_RECEIVED_SHUTDOWN 2

// Whether the peer has ended its direction in order. The cookie says one more than where
// this library keeps what SSL_get_shutdown returns; zero: not known, and then a zero of
// SSL_read alone says it.
static __always_inline bool received_shutdown(struct pt_regs *ctx, const struct call *call)
{
	__u32 at = cookie(ctx) >> 32, shutdown = 0;

	if (!at)
		return !call->out && !(__u32)RESULT(ctx);
	bpf_probe_read_user(&shutdown, sizeof(shutdown), (void *)(call->conn + at - 1));
	return shutdown & SSL_RECEIVED_SHUTDOWN;
}

// The return of all of them. The _ex twins say that they moved something, and where
// how much of it stands.
SEC("uretprobe/SSL_read")
int openssl_return(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call *call = call_returning(ctx, id);
	__s64 n = (__s32)RESULT(ctx);

	if (!call)
		return 0;
	if (call->out) {
		__u64 moved = 0;

		if (n != 1 || bpf_probe_read_user(&moved, sizeof(moved), (void *)call->out))
			moved = 0;
		n = moved;
	}
	return call_leave(id, call, SOURCE_OPENSSL, n, n <= 0 && received_shutdown(ctx, call));
}

SEC("uretprobe/SSL_sendfile")
int openssl_sendfile_return(struct pt_regs *ctx)
{
	return call_return(ctx, SOURCE_OPENSSL, RESULT(ctx), false);
}

// A new session, or one made new: its first bytes are still to come.
SEC("uretprobe/SSL_new")
int openssl_new(struct pt_regs *ctx)
{
	return session_birth(SOURCE_OPENSSL, RESULT(ctx));
}

SEC("uprobe/SSL_clear")
int openssl_clear(struct pt_regs *ctx)
{
	session_end(SOURCE_OPENSSL, ARG1(ctx));
	return session_birth(SOURCE_OPENSSL, ARG1(ctx));
}

SEC("uprobe/SSL_free")
int openssl_free(struct pt_regs *ctx)
{
	return session_end(SOURCE_OPENSSL, ARG1(ctx));
}
