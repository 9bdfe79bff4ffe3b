// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What the ways to the sockets share: the connection of a TCP socket, whether a
// call on it is part of one into a TLS library, and what becomes of its bytes.
#pragma once

#include "capture.h"
#include "thread.h"
#include "tcp.h"

#if defined(__TARGET_ARCH_x86)
#define GO_G(regs) BPF_CORE_READ(regs, r14)
#elif defined(__TARGET_ARCH_arm64)
#define GO_G(regs) BPF_CORE_READ(regs, regs[28])
#endif

// The number of a socket's inode tells it from one that was at its address before.
// 0: no program holds the socket, it is the kernel's own.
static __always_inline __u64 inode_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

// Accounts for what has moved between the last call that was seen and this one. The
// kernel runs no program for a call while another task is preempted inside of that
// program; and another process, or io_uring, may have used the socket.
static __noinline __attribute__((unused)) int note_missed(struct xfer *x)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1, before = c->seq[d];
	__u32 now = sequence((void *)x->key.key, d), n = now - (__u32)x->n - before;

	c->seq[d] = now;
	if (before && now && n && n < MAX_MISSED)
		missed(x, n);
	return 0;
}

// The connection of a socket, made when this process has used none there; its
// call has moved n bytes by now.
static __noinline __attribute__((unused)) struct conn *
socket_conn(const struct conn_key *key, __u64 ino, __u8 dir, __u64 n)
{
	struct conn *c = bpf_map_lookup_elem(&conns, key);
	struct sock *sk = (void *)key->key;

	if (c && c->ino == ino)
		return c;
	c = conn_new(key, was_used(sk, dir, n));
	if (!c)
		return NULL;
	c->ino = ino;
	c->seq[DIR_READ] = sequence(sk, DIR_READ);
	c->seq[DIR_WRITE] = sequence(sk, DIR_WRITE);
	if (c->seq[dir & 1])
		c->seq[dir & 1] -= n;
	set_peer(c, sk);
	return c;
}

// The call into a TLS library that the task is in, else NULL. What goes through
// a socket then was seen there, or is ciphertext.
static __always_inline struct call *tls_call(__u64 id, struct pt_regs *regs)
{
	struct thread *t = find_thread(id);
	struct call_key key = {.task = id >> 32};

	if (t && t->calls[DIR_WRITE].frame)
		return &t->calls[DIR_WRITE];
	if (t && t->calls[DIR_READ].frame)
		return &t->calls[DIR_READ];
	key.g = GO_G(regs);
	return bpf_map_lookup_elem(&calls, &key);
}

// Counts the x->n bytes of a call and finds their connection; false when nothing
// is left to do. The caller has filled key, dir, n, time and tid.
static __always_inline bool socket_seen(struct xfer *x, __u64 ino)
{
	x->counters = counters_of(x->key.source);
	x->settings = settings();
	if (!x->counters || !x->settings)
		return false;
	__sync_fetch_and_add(&x->counters->calls, 1);
	__sync_fetch_and_add(&x->counters->seen, x->n);
	x->conn = socket_conn(&x->key, ino, x->dir, x->n);
	if (x->conn)
		note_missed(x);
	else
		__sync_fetch_and_add(&x->counters->dropped[GAP_STATE], x->n);
	return x->conn;
}

// Bytes in the program's memory. Inside of a TLS library they are none of ours,
// but tell that library's call which peer it talks to.
static __always_inline void socket_bytes(struct xfer *x, __u64 id, struct pt_regs *regs)
{
	struct conn *c = x->conn;

	alike(x);
	if (c->phase != PHASE_DEAD || c->flags & CONN_TLS) {
		struct call *outer = tls_call(id, regs);

		if (outer) {
			outer->sock = x->key.key;
			c->phase = PHASE_DEAD;
			c->flags |= CONN_TLS;
		}
	}
	on_bytes(x);
}

// Finds the connection of a call that ends something of it; false when there is none.
static __always_inline bool socket_known(struct xfer *x, __u64 ino)
{
	x->counters = counters_of(x->key.source);
	x->conn = bpf_map_lookup_elem(&conns, &x->key);
	return x->counters && x->conn && x->conn->ino == ino;
}

// A read of nothing where something was asked for: the end of that direction.
static __always_inline void socket_eof(struct xfer *x, __u64 ino)
{
	if (!socket_known(x, ino))
		return;
	note_missed(x);
	if (x->conn->flags & CONN_CROSSED)
		signal_end(x, KIND_EOF);
}

static __always_inline int socket_close(struct xfer *x, __u64 ino)
{
	if (!socket_known(x, ino))
		return 0;
	x->time = bpf_ktime_get_ns();
	x->dir = DIR_READ;
	note_missed(x);
	x->dir = DIR_WRITE;
	note_missed(x);
	return conn_close(x);
}
