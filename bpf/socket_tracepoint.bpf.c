// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Sockets by the tracepoints of system calls, which every kernel has. Raw
// tracepoints: they need no tracefs, and the arguments still stand in the task's
// registers at the exit, so that only writes, whose time is their entry, are
// looked at twice. A call on anything but a TCP socket ends after a few reads.
#include "syscalls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

static __always_inline void on_close(__u64 id, __u32 fd)
{
	struct tcp t = {};
	struct xfer x = {.tid = id, .key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT}};

	if (!find_tcp(fd, &t))
		return;
	x.key.key = (__u64)t.sk;
	x.conn = bpf_map_lookup_elem(&conns, &x.key);
	// A socket that was duplicated or is in use by another call lives on.
	if (!x.conn || x.conn->ino != t.ino || !last_reference(t.file))
		return;
	x.time = bpf_ktime_get_ns();
	conn_close(&x);
}

// Looks at the first segment of a write at its entry.
static __always_inline void expect(struct conn *c, __u64 nr, struct pt_regs *regs)
{
	struct iovec first = {.iov_base = SYSCALL_ARG2(regs), .iov_len = SYSCALL_ARG3(regs)};
	struct user_msghdr msg = {};

	if (nr == NR_SENDMSG) {
		if (bpf_probe_read_user(&msg, sizeof(msg), (void *)first.iov_base))
			return;
		first.iov_base = msg.msg_iov;
	}
	if ((nr == NR_SENDMSG || nr == NR_WRITEV) &&
	    bpf_probe_read_user(&first, sizeof(first), (void *)first.iov_base))
		return;
	expect_answer(c, first.iov_base, first.iov_len);
}

SEC("raw_tp/sys_enter")
int socket_enter(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct pt_regs *regs = (void *)ctx->args[0];
	struct sock_call call = {};
	struct conn_key key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT};
	struct tcp t = {};
	struct conn *c;

	switch (ctx->args[1]) {
	case NR_CLOSE:
		if (!is_self(key.tgid))
			on_close(id, SYSCALL_ARG1(regs));
		return 0;
	case NR_WRITE:
	case NR_WRITEV:
	case NR_SENDTO:
	case NR_SENDMSG:
		break;
	default:
		return 0;
	}
	if (is_self(key.tgid) || !find_tcp(SYSCALL_ARG1(regs), &t))
		return 0;
	key.key = (__u64)t.sk;
	c = bpf_map_lookup_elem(&conns, &key);
	if (c && c->ino == t.ino) {
		if (c->phase == PHASE_DEAD)
			return 0;
		expect(c, ctx->args[1], regs);
	}
	call.sock = key.key;
	call.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&sock_calls, &id, &call, BPF_ANY);
	return 0;
}

// Whether this call is part of a call into a TLS library that is tapped: what
// goes through the socket then was seen there, or is ciphertext.
static __always_inline bool inside_tls(__u64 id, struct pt_regs *regs)
{
	struct call_key key = {.task = id};

	if (bpf_map_lookup_elem(&calls, &key))
		return true;
	key.task = id >> 32;
	key.g = GO_G(regs);
	return bpf_map_lookup_elem(&calls, &key);
}

SEC("raw_tp/sys_exit")
int socket_exit(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct pt_regs *regs = (void *)ctx->args[0];
	__s64 n = ctx->args[1];
	__u32 nr = SYSCALL_NR(regs);
	struct xfer x = {.tid = id, .key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT}};
	struct tcp t = {};
	__u64 flags = 0;
	bool gather = false, unreadable = false;

	switch (nr) {
	case NR_READV:
		gather = true;
	case NR_READ:
		x.dir = DIR_READ;
		break;
	case NR_WRITEV:
		gather = true;
	case NR_WRITE:
		x.dir = DIR_WRITE;
		break;
	case NR_SENDMSG:
	case NR_SENDTO:
		x.dir = DIR_WRITE;
		break;
	case NR_RECVFROM:
		x.dir = DIR_READ;
		flags = SYSCALL_ARG4(regs);
		break;
	case NR_RECVMSG:
		x.dir = DIR_READ;
		flags = SYSCALL_ARG3(regs);
		break;
	case NR_SENDFILE:
		x.dir = DIR_WRITE;
		unreadable = true;
		break;
	case NR_CONNECT:
		if (n && n != -EINPROGRESS)
			return 0;
		break;
	case NR_ACCEPT:
	case NR_ACCEPT4:
		if (n < 0)
			return 0;
		break;
	default:
		return 0;
	}
	if (n < 0 && nr != NR_CONNECT)
		return 0;
	if (is_self(x.key.tgid) || flags & MSG_PEEK)
		return 0;
	if (!find_tcp(nr == NR_ACCEPT || nr == NR_ACCEPT4 ? (__u32)n : (__u32)SYSCALL_ARG1(regs), &t))
		return 0;
	x.key.key = (__u64)t.sk;
	if (nr == NR_CONNECT || nr == NR_ACCEPT || nr == NR_ACCEPT4) {
		find_conn(&x.key, &t, false);
		return 0;
	}
	x.counters = counters_of(SOURCE_SOCKET_TRACEPOINT);
	if (!x.counters)
		return 0;
	if (n > 0) {
		__sync_fetch_and_add(&x.counters->calls, 1);
		__sync_fetch_and_add(&x.counters->seen, n);
	}
	x.n = n;
	x.time = bpf_ktime_get_ns();
	if (n == 0) {
		// A read of nothing is the end, unless nothing was asked for.
		x.conn = bpf_map_lookup_elem(&conns, &x.key);
		if (x.dir == DIR_READ && (nr == NR_READ || nr == NR_RECVFROM) &&
		    SYSCALL_ARG3(regs) && x.conn && x.conn->ino == t.ino &&
		    x.conn->flags & CONN_CROSSED)
			signal_end(&x, KIND_EOF);
		return 0;
	}
	x.conn = find_conn(&x.key, &t, true);
	if (!x.conn) {
		__sync_fetch_and_add(&x.counters->dropped[GAP_STATE], n);
		return 0;
	}
	if (x.conn->phase != PHASE_DEAD) {
		if (inside_tls(id, regs))
			x.conn->phase = PHASE_DEAD;
		if (x.dir == DIR_WRITE) {
			struct sock_call *call = bpf_map_lookup_elem(&sock_calls, &id);

			if (call && call->sock == x.key.key)
				x.time = call->time;
		}
	}
	if (unreadable || flags & MSG_TRUNC) {
		if (x.conn->phase == PHASE_OPEN || x.conn->phase == PHASE_H2)
			drop(&x, n, GAP_UNREADABLE);
		else
			ignore(&x, n);
		return 0;
	}
	x.buf = SYSCALL_ARG2(regs);
	x.seg_left = n;
	if (nr == NR_SENDMSG || nr == NR_RECVMSG) {
		struct user_msghdr msg = {};

		bpf_probe_read_user(&msg, sizeof(msg), (void *)x.buf);
		x.iov = msg.msg_iov;
		x.iov_left = msg.msg_iovlen;
		x.seg_left = 0;
	} else if (gather) {
		x.iov = x.buf;
		x.iov_left = SYSCALL_ARG3(regs);
		x.seg_left = 0;
	}
	if (x.iov)
		next_segment(&x);
	on_bytes(&x);
	return 0;
}
