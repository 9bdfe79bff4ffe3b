// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Sockets by the tracepoints of system calls, which every kernel has. Raw
// tracepoints: they need no tracefs, and the arguments still stand in the task's
// registers at the exit, so that only writes, whose time is their entry, are
// looked at twice. A call on anything but a TCP socket ends after a few reads.
// What io_uring moves makes no system call and is not seen.
#include "socket.h"
#include "syscalls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// Messages of one vector that are looked at. TCP has no use for messages, so that
// vectors of them are rare and short.
#define MAX_MESSAGES 64

static __always_inline void on_close(__u64 id, __u32 fd)
{
	struct tcp t = {};
	struct xfer x = {.tid = id, .key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT}};

	// A socket that was duplicated or is in use by another call lives on.
	if (!find_tcp(fd, &t) || !last_reference(t.file))
		return;
	x.key.key = (__u64)t.sk;
	socket_close(&x, t.ino);
}

// How many bytes the messages of a vector have between them.
static __noinline __attribute__((unused)) __u64 messages_length(__u64 msgs, __u32 count)
{
	struct mmsghdr *m = (void *)msgs;
	__u64 sum = 0;

	for (__u32 i = 0; i < MAX_MESSAGES && i < count; i++) {
		__u32 len = 0;

		bpf_probe_read_user(&len, sizeof(len), &m[i].msg_len);
		sum += len;
	}
	return sum;
}

// Finds the bytes of a call by its arguments. count: of the messages of a vector
// that were moved.
static __always_inline void locate(struct xfer *x, __u32 nr, struct pt_regs *regs, __u32 count)
{
	__u64 arg = SYSCALL_ARG2(regs), len = SYSCALL_ARG3(regs);
	struct user_msghdr msg = {};

	switch (nr) {
	case NR_READV:
	case NR_WRITEV:
		gather(x, arg, len);
		break;
	case NR_SENDMSG:
	case NR_RECVMSG:
		bpf_probe_read_user(&msg, sizeof(msg), (void *)arg);
		gather(x, msg.msg_iov, msg.msg_iovlen);
		break;
	case NR_SENDMMSG:
	case NR_RECVMMSG:
		x->msgs = arg;
		x->msgs_left = count;
		next_message(x);
		next_segment(x);
		break;
	default:
		x->buf = arg;
		x->seg_left = len;
	}
}

static __always_inline int on_enter(struct pt_regs *regs, __u32 nr)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct conn_key key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT};
	struct sock_call call = {};
	struct xfer x = {};
	struct tcp t = {};
	struct conn *c;

	switch (nr) {
	case NR_CLOSE:
		if (!is_self(key.tgid))
			on_close(id, SYSCALL_ARG1(regs));
		return 0;
	case NR_WRITE:
	case NR_WRITEV:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDMMSG:
		break;
	default:
		return 0;
	}
	if (is_self(key.tgid) || !find_tcp(SYSCALL_ARG1(regs), &t))
		return 0;
	key.key = (__u64)t.sk;
	c = socket_conn(&key, t.ino, DIR_WRITE, 0);
	if (!c || c->phase == PHASE_DEAD)
		return 0;
	// The first message of a vector stands where the only one would.
	locate(&x, nr == NR_SENDMMSG ? NR_SENDMSG : nr, regs, 0);
	expect_answer(c, x.buf, x.seg_left);
	call.sock = key.key;
	call.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&sock_calls, &id, &call, BPF_ANY);
	return 0;
}

static __always_inline int on_exit(struct pt_regs *regs, __u32 nr, __s64 n)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct xfer x = {.tid = id, .key = {.tgid = id >> 32, .source = SOURCE_SOCKET_TRACEPOINT}};
	struct tcp t = {};
	__u64 flags = 0, fd = SYSCALL_ARG1(regs);
	__u32 count = 0; // of messages
	bool pages = false;

	if (n < 0)
		return 0;
	switch (nr) {
	case NR_READ:
	case NR_READV:
		x.dir = DIR_READ;
		break;
	case NR_WRITE:
	case NR_WRITEV:
	case NR_SENDMSG:
	case NR_SENDTO:
		x.dir = DIR_WRITE;
		break;
	case NR_SENDMMSG:
		x.dir = DIR_WRITE;
		count = n;
		break;
	case NR_RECVFROM:
	case NR_RECVMMSG:
		x.dir = DIR_READ;
		flags = SYSCALL_ARG4(regs);
		count = nr == NR_RECVMMSG ? n : 0;
		break;
	case NR_RECVMSG:
		x.dir = DIR_READ;
		flags = SYSCALL_ARG3(regs);
		break;
	case NR_SENDFILE:
	case NR_SPLICE:
		x.dir = DIR_WRITE;
		pages = true;
		break;
	default:
		return 0;
	}
	if (is_self(x.key.tgid) || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	if (nr == NR_SPLICE && find_tcp(SYSCALL_ARG3(regs), &t))
		; // to a socket
	else if (!find_tcp(fd, &t))
		return 0;
	else if (nr == NR_SPLICE)
		x.dir = DIR_READ;
	x.key.key = (__u64)t.sk;
	x.time = bpf_ktime_get_ns();
	if (!pages)
		locate(&x, nr, regs, count);
	if (count)
		n = messages_length(SYSCALL_ARG2(regs), count);
	if (n == 0) {
		// Nothing where something was asked for.
		if (x.dir == DIR_READ && x.seg_left)
			socket_eof(&x, t.ino);
		return 0;
	}
	x.n = n;
	if (!socket_seen(&x, t.ino))
		return 0;
	if (pages || flags & MSG_TRUNC) {
		unreadable(&x);
		return 0;
	}
	if (x.dir == DIR_WRITE && x.conn->phase != PHASE_DEAD) {
		struct sock_call *call = bpf_map_lookup_elem(&sock_calls, &id);

		if (call && call->sock == x.key.key)
			x.time = call->time;
	}
	socket_bytes(&x, id, regs);
	return 0;
}

SEC("raw_tp/sys_enter")
int socket_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return on_enter((void *)ctx->args[0], ctx->args[1]);
}

SEC("raw_tp/sys_exit")
int socket_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (void *)ctx->args[0];

	return on_exit(regs, SYSCALL_NR(regs), ctx->args[1]);
}

SEC("tp/raw_syscalls/sys_enter")
int socket_enter_whole(struct perf_syscall *ctx)
{
	return on_enter(user_regs(), ctx->nr);
}

SEC("tp/raw_syscalls/sys_exit")
int socket_exit_whole(struct perf_syscall *ctx)
{
	return on_exit(user_regs(), ctx->nr, ctx->ret);
}
