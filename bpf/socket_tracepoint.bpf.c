// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Sockets by the tracepoints of system calls, which every kernel has. Raw
// tracepoints: they need no tracefs, and the arguments still stand in the task's
// registers at the exit, so that only writes, whose time is their entry, are
// looked at twice. A call on anything but a TCP socket ends after a few reads.
#include "capture.h"

char __license[] SEC("license") = "Dual BSD/GPL";

#if defined(__TARGET_ARCH_x86)
enum nr {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_CLOSE = 3,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_CONNECT = 42,
	NR_ACCEPT = 43,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_ACCEPT4 = 288,
};
#define SYSCALL_ARG1(regs) BPF_CORE_READ(regs, di)
#define SYSCALL_ARG2(regs) BPF_CORE_READ(regs, si)
#define SYSCALL_ARG3(regs) BPF_CORE_READ(regs, dx)
#define SYSCALL_ARG4(regs) BPF_CORE_READ(regs, r10)
#define SYSCALL_NR(regs) BPF_CORE_READ(regs, orig_ax)
#define GO_G(regs) BPF_CORE_READ(regs, r14)
#define TS_COMPAT 2

static __always_inline bool is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
}
#elif defined(__TARGET_ARCH_arm64)
enum nr {
	NR_CLOSE = 57,
	NR_READ = 63,
	NR_WRITE = 64,
	NR_READV = 65,
	NR_WRITEV = 66,
	NR_SENDFILE = 71,
	NR_ACCEPT = 202,
	NR_CONNECT = 203,
	NR_SENDTO = 206,
	NR_RECVFROM = 207,
	NR_SENDMSG = 211,
	NR_RECVMSG = 212,
	NR_ACCEPT4 = 242,
};
struct pt_regs___nr {
	int syscallno;
} __attribute__((preserve_access_index));
#define SYSCALL_ARG1(regs) BPF_CORE_READ(regs, orig_x0)
#define SYSCALL_ARG2(regs) BPF_CORE_READ(regs, regs[1])
#define SYSCALL_ARG3(regs) BPF_CORE_READ(regs, regs[2])
#define SYSCALL_ARG4(regs) BPF_CORE_READ(regs, regs[3])
#define SYSCALL_NR(regs) BPF_CORE_READ((struct pt_regs___nr *)(regs), syscallno)
#define GO_G(regs) BPF_CORE_READ(regs, regs[28])
#define TIF_32BIT 22

static __always_inline bool is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.flags) >> TIF_32BIT & 1;
}
#endif

struct tcp {
	struct file *file;
	struct sock *sk;
	__u64 ino;
	__u16 family;
};

// The TCP socket behind a descriptor of this task; false for everything else.
static __noinline __attribute__((unused)) int find_tcp(__u32 fd, struct tcp *t)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file;
	struct socket *socket;
	struct inode *inode;
	struct sock *sk;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	slots = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), slots + fd) || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	t->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (t->family != AF_INET && t->family != AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	t->file = file;
	t->sk = sk;
	t->ino = BPF_CORE_READ(inode, i_ino);
	return !is_compat(task);
}

static __always_inline void set_peer(struct conn *c, struct tcp *t)
{
	struct sock *sk = t->sk;

	c->family = t->family;
	c->port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (t->family == AF_INET)
		c->addr[0] = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	else
		BPF_CORE_READ_INTO(&c->addr, sk, __sk_common.skc_v6_daddr);
}

// The connection of a socket; a new one, late or not, when there is none or when
// the address belongs to another socket by now.
static __noinline __attribute__((unused)) struct conn *
find_conn(const struct conn_key *key, struct tcp *t, bool late)
{
	struct conn *c = bpf_map_lookup_elem(&conns, key);

	if (c && c->ino == t->ino)
		return c;
	c = conn_new(key, late);
	if (!c)
		return NULL;
	c->ino = t->ino;
	set_peer(c, t);
	return c;
}

static __always_inline bool last_reference(struct file *file)
{
	struct file___ref *f = (void *)file;

	if (bpf_core_field_exists(f->f_ref))
		return BPF_CORE_READ(f, f_ref.refcnt.counter) == 0;
	return BPF_CORE_READ(file, f_count.counter) == 1;
}

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
