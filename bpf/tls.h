// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What the taps of TLS libraries share: calls between entry and return, sessions
// between birth and end.
#pragma once

#include "capture.h"
#include "registers.h"
#include "thread.h"

// What the probe says to its program: in the lower half how much the stack has grown
// between the function's entry, or its return, and where the probe stands; in the upper
// half what the tap wants. Zero before Linux 5.15.
static __always_inline __u64 cookie(struct pt_regs *ctx)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_attach_cookie))
		return bpf_get_attach_cookie(ctx);
	return 0;
}

// Where the stack stood at the function's entry.
#define FRAME(ctx) ((ctx)->sp + (__u32)cookie(ctx))
#define RETURN_FRAME(ctx) (FRAME(ctx) - POPPED)

// Looks at a request that the n bytes at buf may begin, before the write of them.
static __always_inline void before_write(__u64 id, __u32 source, __u64 session, __u64 buf, __u64 n)
{
	struct conn_key key = {.key = session, .tgid = id >> 32, .source = source};

	expect_answer(bpf_map_lookup_elem(&conns, &key), buf, n);
}

// Remembers a call of the thread at its entry. A call that is entered while another one of
// this direction is on the stack above it is part of that one; an entry that lies no
// higher than this one was left by a call that never returned.
static __always_inline int call_enter(__u64 id, const struct call *call)
{
	struct thread *t = find_thread(id);
	struct call *same, *other;

	if (!t)
		t = new_thread(id);
	if (!t)
		return 0;
	same = &t->calls[call->dir == DIR_READ];
	other = &t->calls[call->dir != DIR_READ];
	if (same->frame > call->frame)
		return 0;
	*same = *call;
	if (other->frame <= call->frame) // it never returned
		other->frame = 0;
	return 0;
}

// A read of what goes to buf; of how much, the call says at out or by its result.
static __always_inline int read_enter(__u64 frame, __u64 conn, __u64 buf, __u64 out)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call call = {.frame = frame, .conn = conn, .buf = buf, .out = out, .dir = DIR_READ};

	return is_self(id >> 32) ? 0 : call_enter(id, &call);
}

// A write of up to n bytes at buf; a buf of zero stands for what cannot be read.
static __always_inline int write_enter(__u64 frame, __u32 source, __u64 conn, __u64 buf, __u64 n,
				       __u64 out)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call call = {.frame = frame, .conn = conn, .buf = buf, .out = out, .dir = DIR_WRITE};

	if (is_self(id >> 32))
		return 0;
	if (buf)
		before_write(id, source, conn, buf, n);
	call.time = bpf_ktime_get_ns();
	return call_enter(id, &call);
}

// Begins to account for the n bytes that a call has moved: counts them as seen and
// finds their connection; false when its state cannot be kept.
static __always_inline bool call_moved(struct xfer *x, __u64 id, const struct call *call,
				       __u32 source, __u64 n)
{
	__builtin_memset(x, 0, sizeof(*x));
	x->key.key = call->conn;
	x->key.tgid = id >> 32;
	x->key.source = source;
	x->counters = counters_of(source);
	x->time = call->dir == DIR_WRITE ? call->time : bpf_ktime_get_ns();
	x->n = n;
	x->tid = id;
	x->dir = call->dir;
	if (!x->counters)
		return false;
	__sync_fetch_and_add(&x->counters->calls, 1);
	__sync_fetch_and_add(&x->counters->seen, n);
	x->conn = bpf_map_lookup_elem(&conns, &x->key);
	if (!x->conn)
		x->conn = conn_new(&x->key, true);
	if (!x->conn)
		__sync_fetch_and_add(&x->counters->dropped[GAP_STATE], n);
	else if (call->sock && !x->conn->family)
		set_peer(x->conn, (struct sock *)call->sock);
	return x->conn;
}

// Counts and handles the n bytes that a call has moved from or to buf.
static __always_inline int call_bytes(__u64 id, const struct call *call, __u32 source,
				      __u64 buf, __u64 n)
{
	struct xfer x;

	if (!call_moved(&x, id, call, source, n))
		return 0;
	x.buf = buf;
	x.seg_left = n;
	on_bytes(&x);
	return 0;
}

// Counts the n bytes of a call that moves what no probe can read: pages of a file,
// or a buffer that the caller need not have kept.
static __always_inline int call_unreadable(__u64 id, const struct call *call, __u32 source,
					   __u64 n)
{
	struct xfer x;

	if (call_moved(&x, id, call, source, n))
		unreadable(&x);
	return 0;
}

// A read that was told that nothing more will come.
static __always_inline int call_eof(__u64 id, const struct call *call, __u32 source)
{
	struct xfer x = {
		.key = {.key = call->conn, .tgid = id >> 32, .source = source},
		.time = bpf_ktime_get_ns(),
		.tid = id,
		.dir = DIR_READ,
	};

	x.conn = bpf_map_lookup_elem(&conns, &x.key);
	if (x.conn && x.conn->flags & CONN_CROSSED)
		signal_end(&x, KIND_EOF);
	return 0;
}

// The call of the thread that returns here; NULL when its entry was not seen. Of nested
// calls the outermost wins: it is the one that was entered first.
static __always_inline struct call *call_returning(struct pt_regs *ctx, __u64 id)
{
	struct thread *t = find_thread(id);
	__u64 frame;

	if (!t)
		return NULL;
	frame = RETURN_FRAME(ctx);
	if (t->calls[DIR_READ].frame == frame)
		return &t->calls[DIR_READ];
	return t->calls[DIR_WRITE].frame == frame ? &t->calls[DIR_WRITE] : NULL;
}

// The end of a call that has moved n bytes; n of zero or below: none. eof: a read that
// moved none because nothing more will come.
static __always_inline int call_leave(__u64 id, struct call *call, __u32 source, __s64 n, bool eof)
{
	struct call done = *call;

	call->frame = 0;
	if (!done.conn)
		return 0;
	if (n <= 0)
		return eof && done.dir == DIR_READ ? call_eof(id, &done, source) : 0;
	if (!done.buf)
		return call_unreadable(id, &done, source, n);
	return call_bytes(id, &done, source, done.buf, n);
}

static __always_inline int call_return(struct pt_regs *ctx, __u32 source, __s64 n, bool eof)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call *call = call_returning(ctx, id);

	return call ? call_leave(id, call, source, n, eof) : 0;
}

static __always_inline int session_birth(__u32 source, __u64 session)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct conn_key key = {.key = session, .tgid = id >> 32, .source = source};

	if (session && !is_self(key.tgid))
		conn_new(&key, false);
	return 0;
}

static __always_inline int session_end(__u32 source, __u64 session)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct xfer x = {
		.key = {.key = session, .tgid = id >> 32, .source = source},
		.tid = id,
	};

	x.conn = bpf_map_lookup_elem(&conns, &x.key);
	if (!x.conn)
		return 0;
	x.time = bpf_ktime_get_ns();
	return conn_close(&x);
}
