// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The calls that every user of a TCP socket comes to, system calls and io_uring
// alike: tcp_sendmsg and tcp_recvmsg, and tcp_sendpage (until Linux 6.5) and
// tcp_splice_read, whose bytes are a file's or a pipe's pages. Where a message's
// bytes lie is written down at the entry, since the kernel moves its iov_iter on;
// they are read at the return, when it is known how many there are.
#pragma once

#include "socket.h"

// Where tcp_recvmsg has its flags, from 0: user space reads it from the kernel's
// BTF. Linux 5.19 took out the argument before.
const volatile __u32 recvmsg_flags = 3;

// Notes where the bytes of a message lie, across the iov_iters of ten years.
static __always_inline void locate(struct sock_call *call, struct msghdr *msg)
{
	struct iov_iter *it = __builtin_preserve_access_index(&msg->msg_iter);
	struct iov_iter___flags *flags = (void *)it;
	struct iov_iter___iov *old = (void *)it;
	__u64 done = BPF_CORE_READ(it, iov_offset);
	struct iovec first = {};
	__u32 type;

	if (bpf_core_field_exists(it->iter_type))
		type = BPF_CORE_READ(it, iter_type);
	else
		type = BPF_CORE_READ(flags, type) & ~1;
	call->size = BPF_CORE_READ(it, count);
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	    type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		call->buf = (__u64)BPF_CORE_READ(it, ubuf) + done;
		call->seg_left = call->size;
		return;
	}
	if (type != bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		call->unreadable = 1;
		return;
	}
	if (bpf_core_field_exists(it->__iov))
		call->iov = (__u64)BPF_CORE_READ(it, __iov);
	else
		call->iov = (__u64)BPF_CORE_READ(old, iov);
	call->iov_left = BPF_CORE_READ(it, nr_segs);
	if (!call->iov_left || bpf_probe_read_kernel(&first, sizeof(first), (void *)call->iov))
		return;
	call->buf = first.iov_base + done;
	call->seg_left = first.iov_len - done;
	call->iov += sizeof(first);
	call->iov_left--;
}

// Remembers a call at its entry. msg is NULL where the bytes are pages.
static __always_inline int enter(__u32 source, __u64 sk, struct msghdr *msg, __u32 flags, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid(), ino = inode_of((struct sock *)sk);
	struct conn_key key = {.key = sk, .tgid = id >> 32, .source = source};
	struct sock_call call = {.sock = sk, .dir = dir};
	struct conn *c;

	if (is_self(key.tgid))
		return 0;
	if (!ino || (dir == DIR_READ && flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))) {
		bpf_map_delete_elem(&sock_calls, &id);
		return 0;
	}
	c = socket_conn(&key, ino, dir, 0);
	if (msg)
		locate(&call, msg);
	if (!msg || (dir == DIR_READ && flags & MSG_TRUNC))
		call.unreadable = 1;
	if (dir == DIR_WRITE && !call.unreadable)
		expect_answer(c, call.buf, call.seg_left);
	call.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&sock_calls, &id, &call, BPF_ANY);
	return 0;
}

// The return of a call that was entered: n bytes were moved, or an error. sk is 0
// where the return does not say whose it is.
static __always_inline int leave(__u32 source, __u64 sk, __s32 n)
{
	__u64 id = bpf_get_current_pid_tgid(), ino;
	struct sock_call *call = bpf_map_lookup_elem(&sock_calls, &id);
	struct xfer x = {
		.key = {.tgid = id >> 32, .source = source},
		.tid = id,
		.msg_left = ~0ULL,
		.kernel_iov = 1,
	};
	bool readable;
	__u64 size;

	if (!call || (sk && sk != call->sock)) // its entry was missed
		return 0;
	x.key.key = call->sock;
	x.dir = call->dir;
	x.time = call->dir == DIR_WRITE ? call->time : bpf_ktime_get_ns();
	x.buf = call->buf;
	x.seg_left = call->seg_left;
	x.iov = call->iov;
	x.iov_left = call->iov_left;
	readable = !call->unreadable;
	size = call->size;
	bpf_map_delete_elem(&sock_calls, &id);
	ino = inode_of((struct sock *)x.key.key);
	if (n == 0 && x.dir == DIR_READ && size)
		socket_eof(&x, ino);
	if (n <= 0)
		return 0;
	x.n = n;
	if (!socket_seen(&x, ino))
		return 0;
	if (readable)
		socket_bytes(&x, id, user_regs());
	else
		unreadable(&x);
	return 0;
}

// A call on pages, where entry and return need not be told apart.
static __always_inline int pages(__u32 source, __u64 sk, __u8 dir, __s64 n)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct xfer x = {
		.key = {.key = sk, .tgid = id >> 32, .source = source},
		.time = bpf_ktime_get_ns(),
		.tid = id,
		.dir = dir,
		.n = n,
	};

	if (n > 0 && !is_self(x.key.tgid) && socket_seen(&x, inode_of((struct sock *)sk)))
		unreadable(&x);
	return 0;
}

// The last descriptor of a socket is gone, be it by close or with the process.
static __always_inline int closed(__u32 source, __u64 sk)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct xfer x = {.key = {.key = sk, .tgid = id >> 32, .source = source}, .tid = id};

	return socket_close(&x, inode_of((struct sock *)sk));
}
