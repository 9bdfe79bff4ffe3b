// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// OpenSSL's SSL_read, SSL_write and their _ex twins, in libssl or linked into an
// executable. What a call did is known at its return alone: a write that is
// retried after WANT_WRITE, or taken in part, must count once.
#include "tls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("uprobe/SSL_read")
int openssl_read(struct pt_regs *ctx)
{
	return call_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), 0, DIR_READ);
}

SEC("uprobe/SSL_write")
int openssl_write(struct pt_regs *ctx)
{
	before_write(SOURCE_OPENSSL, ARG1(ctx), ARG2(ctx), (__s32)ARG3(ctx));
	return call_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), 0, DIR_WRITE);
}

SEC("uprobe/SSL_read_ex")
int openssl_read_ex(struct pt_regs *ctx)
{
	return call_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), ARG4(ctx), DIR_READ);
}

SEC("uprobe/SSL_write_ex")
int openssl_write_ex(struct pt_regs *ctx)
{
	before_write(SOURCE_OPENSSL, ARG1(ctx), ARG2(ctx), ARG3(ctx));
	return call_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), ARG4(ctx), DIR_WRITE);
}

// The return of all four.
SEC("uretprobe/SSL_read")
int openssl_return(struct pt_regs *ctx)
{
	struct call_key key = {.task = bpf_get_current_pid_tgid()};
	struct call *call = bpf_map_lookup_elem(&calls, &key);
	__s64 n = (__s32)RESULT(ctx);

	// Of nested calls the outermost wins: it is the one that was entered first.
	if (!call || call->frame != RETURN_FRAME(ctx))
		return 0;
	if (call->out) {
		__u64 written = 0;

		if (n != 1 || bpf_probe_read_user(&written, sizeof(written), (void *)call->out))
			n = 0;
		else
			n = written;
	}
	struct call done = *call;

	bpf_map_delete_elem(&calls, &key);
	if (n > 0)
		call_bytes(&done, SOURCE_OPENSSL, done.buf, n);
	return 0;
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
