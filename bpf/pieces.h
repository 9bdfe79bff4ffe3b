// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// How the bytes of a call are copied into its ring: in pieces, across the segments and
// messages of a vector, each with its position.
#pragma once

#include "xfer.h"

#define PIECE 16384
// Pieces of one call: 16 MiB where the kernel has bpf_loop (5.17), else what the
// verifier has the patience to walk through.
#define MAX_PIECES 1024
#define MAX_PIECES_UNROLLED 24

struct piece {
	struct hdr hdr;
	__u8 data[];
};

// Copies the len bytes at x->buf, PIECE at most, into a record that is still to be
// submitted; NULL when they cannot be, and why. Records come in size classes, so that the
// ring is not filled with air; the lower ones can be left out.
static __always_inline struct piece *try_piece(struct xfer *x, __u64 len, bool small, __u32 *why)
{
	struct piece *p;
	__u32 size = forget(x, len);

	// Each class bounds the size by itself: older kernels, 6.1 still, lose a constant that is
	// kept on the stack, and would take it for any of the classes'.
#define CLASS(room) (size = size > (room) ? (room) : size, bpf_ringbuf_reserve(x->ring, sizeof(*p) + (room), 0))
	if (small && len <= 416)
		p = CLASS(416);
	else if (small && len <= 1440)
		p = CLASS(1440);
	else if (len <= 4000)
		p = CLASS(4000);
	else
		p = CLASS(PIECE);
#undef CLASS
	*why = GAP_RING_FULL;
	if (p && read_bytes(x, p->data, size, x->buf)) {
		discard(x, p);
		*why = GAP_FAULT;
		p = NULL;
	}
	return p;
}

// As try_piece, and what cannot be copied is dropped.
static __always_inline struct piece *copy_piece(struct xfer *x, __u64 len, bool small)
{
	__u32 why;
	struct piece *p = try_piece(x, len, small, &why);

	if (!p)
		drop(x, len, why);
	return p;
}

static __always_inline void submit_piece(struct xfer *x, struct piece *p, __u64 len)
{
	fill(&p->hdr, x, KIND_DATA, len);
	count_submitted(x, len);
	submit(x, p);
}

static __always_inline void cross_piece(struct xfer *x, __u64 len, bool small)
{
	struct piece *p = copy_piece(x, len, small);

	if (p)
		submit_piece(x, p, len);
}

static __always_inline long read_segment(struct xfer *x, __u64 iov, struct iovec *v)
{
	if (x->kernel_iov)
		return bpf_probe_read_kernel(v, sizeof(*v), (void *)iov);
	return bpf_probe_read_user(v, sizeof(*v), (void *)iov);
}

// Goes on to the next message of a vector, which has its own length.
static __always_inline void next_message(struct xfer *x)
{
	struct mmsghdr *m = (void *)x->msgs;
	struct {
		__u64 iov;
		__u64 iovlen;
	} list = {};
	__u32 len = 0;

	bpf_probe_read_user(&list, sizeof(list), &m->msg_hdr.msg_iov);
	bpf_probe_read_user(&len, sizeof(len), &m->msg_len);
	x->iov = list.iov;
	x->iov_left = list.iovlen;
	x->msg_left = len;
	x->msgs = (__u64)(m + 1);
	x->msgs_left--;
}

static __always_inline void next_segment(struct xfer *x)
{
	struct iovec v = {};

	if (!x->iov_left || !x->msg_left) {
		x->iov = 0;
		if (x->msgs_left)
			next_message(x);
		return;
	}
	if (read_segment(x, x->iov, &v)) {
		x->iov = 0;
		x->iov_left = 0;
		x->msgs_left = 0;
		return;
	}
	x->buf = v.iov_base;
	x->seg_left = v.iov_len < x->msg_left ? v.iov_len : x->msg_left;
	x->msg_left -= x->seg_left;
	x->iov += sizeof(v);
	x->iov_left--;
}

// The bytes of the call lie in the segments of a list.
static __always_inline void gather(struct xfer *x, __u64 iov, __u64 segments)
{
	x->iov = iov;
	x->iov_left = segments;
	x->msg_left = ~0ULL;
	x->seg_left = 0;
	next_segment(x);
}

// One round of the loop of cross: a piece, of the next segment where one has ended. 1
// ends the loop.
static __always_inline int cross_next(struct xfer *x, bool small)
{
	__u64 len = x->n;

	if (!len)
		return 1;
	if (!x->seg_left) {
		if (!x->iov)
			return 1;
		next_segment(x);
	}
	if (len > x->seg_left)
		len = x->seg_left;
	if (!len) // an empty one, or a message's end
		return 0;
	if (len > PIECE)
		len = PIECE;
	len = forget(x, len);
	cross_piece(x, len, small);
	len = forget(x, len);
	x->buf += len;
	x->seg_left -= len;
	x->n -= len;
	return 0;
}

static int cross_step(__u32 i, struct xfer *x)
{
	return cross_next(x, true);
}

static __always_inline bool verdict_is(struct xfer *x, __u32 exchange, __u32 verdict)
{
	struct verdict_key key = {.key = x->key.key, .gen = x->conn->gen, .exchange = exchange};
	__u32 *v = bpf_map_lookup_elem(&verdicts, &key);

	return v && *v == verdict;
}

// Copies all bytes of the call that the message's limit allows, if it has one.
static __noinline __attribute__((unused)) int cross(struct xfer *x)
{
	__u64 have = x->conn->message[x->dir & 1], limit = x->settings->body_limit;
	__u64 room = have < limit ? limit - have : 0, over = 0;

	if (limit && x->conn->phase != PHASE_H2 && x->n > room &&
	    !verdict_is(x, x->conn->exchange, VERDICT_CAPTURE)) {
		over = x->n - room;
		x->n = room;
	}
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		if (!cross_step(0, x) && x->n) // most calls are one piece
			bpf_loop(MAX_PIECES - 1, cross_step, x, 0);
	} else {
		for (__u32 i = 0; i < MAX_PIECES_UNROLLED; i++)
			if (cross_next(x, !i))
				break;
	}
	if (x->n) // more pieces or segments than a call may have here
		drop(x, x->n, GAP_UNREADABLE);
	if (over)
		drop(x, over, GAP_OVER_LIMIT);
	return 0;
}

#define MAX_HELD 16

// Submits the len bytes at kept, which were held back since held_time, as bytes of
// their own.
static __always_inline void cross_kept(struct xfer *x, const void *kept, __u32 size, __u32 len)
{
	struct {
		struct hdr hdr;
		__u8 data[MAX_HELD];
	} *r = bpf_ringbuf_reserve(x->ring, sizeof(*r), 0);
	__u64 now = x->time;

	if (!r) {
		drop(x, len, GAP_RING_FULL);
		return;
	}
	x->time = x->conn->held_time[x->dir & 1];
	__builtin_memcpy(r->data, kept, size);
	fill(&r->hdr, x, KIND_DATA, len);
	x->time = now;
	count_submitted(x, len);
	submit(x, r);
}

// Submits what was held back of a head.
static __noinline __attribute__((unused)) int cross_held(struct xfer *x)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;

	cross_kept(x, &c->held[d], sizeof(c->held[d]), c->held_len[d] & 7);
	c->held_len[d] = 0;
	c->held[d] = 0;
	return 0;
}

// Submits what was held back of an HTTP/2 frame header.
static __noinline __attribute__((unused)) int cross_header(struct xfer *x, __u32 len)
{
	struct frames *f = &x->conn->frames[x->dir & 1];

	cross_kept(x, f->head, sizeof(f->head), len & 15);
	return 0;
}
