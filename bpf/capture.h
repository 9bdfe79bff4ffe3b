// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What happens to the bytes of one call, whichever tap saw it: they are counted,
// the connection's phase decides whether they cross, and those that do are
// copied into the connection's ring in pieces, each with its position and with
// the number of bytes that are missing before it.
#pragma once

#include "exchange.h"
#include "http.h"
#include "pieces.h"
#include "xfer.h"

// Calls on a late connection that may begin with nothing known, before it is given up.
#define MAX_STRANGERS 4096

static __always_inline void ignore_held(struct xfer *x)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;

	if (c->held_len[d] || c->frames[d].have)
		ignore(x, c->held_len[d] + c->frames[d].have);
	c->held_len[d] = 0;
	c->held[d] = 0;
	c->frames[d].have = 0;
}

// The x->n bytes of a call that no probe can read: a file's pages, or thrown away.
static __always_inline void unreadable(struct xfer *x)
{
	ignore_held(x);
	if (x->conn->phase == PHASE_OPEN || x->conn->phase == PHASE_H2)
		drop(x, x->n, GAP_UNREADABLE);
	else
		ignore(x, x->n);
	x->conn->frames[x->dir & 1].lost = 1;
}

// n bytes that were moved before this call's without any program's being told. A
// head may have been among them.
static __always_inline void missed(struct xfer *x, __u64 n)
{
	__sync_fetch_and_add(&x->counters->seen, n);
	ignore_held(x);
	if (x->conn->phase == PHASE_UNKNOWN)
		x->conn->flags |= CONN_LATE;
	if (x->conn->phase == PHASE_DEAD)
		ignore(x, n);
	else
		drop(x, n, GAP_MISSED);
	x->conn->frames[x->dir & 1].lost = 1;
}

// A record without payload: the end of a direction or of the connection.
static __noinline __attribute__((unused)) int signal_end(struct xfer *x, __u32 kind)
{
	struct conn *c = x->conn;
	struct hdr *h;

	if (!find_ring(x))
		return 0;
	// The record names one direction; a loss at the end of the other goes before it.
	if (kind == KIND_CLOSE && c->gap_reason[DIR_WRITE] > GAP_IGNORED) {
		h = bpf_ringbuf_reserve(x->ring, sizeof(*h), 0);
		if (h) {
			x->dir = DIR_WRITE;
			fill(h, x, KIND_DATA, 0);
			submit(x, h);
		} else {
			count_lost_end(x->key.source);
		}
	}
	if (kind == KIND_CLOSE)
		x->dir = DIR_READ;
	h = bpf_ringbuf_reserve(x->ring, sizeof(*h), 0);
	if (!h) {
		count_lost_end(x->key.source);
		return 0;
	}
	fill(h, x, kind, 0);
	submit(x, h);
	return 0;
}

// The connection is gone: says so to user space if it knows it, and forgets it.
static __noinline __attribute__((unused)) int conn_close(struct xfer *x)
{
	x->counters = counters_of(x->key.source);
	if (x->counters) {
		x->dir = DIR_WRITE;
		ignore_held(x);
		x->dir = DIR_READ;
		ignore_held(x);
	}
	if (x->conn->flags & CONN_CROSSED)
		signal_end(x, KIND_CLOSE);
	bpf_map_delete_elem(&conns, &x->key);
	return 0;
}

static __always_inline void remember_process(struct xfer *x)
{
	if (x->conn->flags & CONN_CROSSED)
		return;
	x->conn->flags |= CONN_CROSSED;
	bpf_map_update_elem(&procs, &x->key.tgid, &x->conn->start, BPF_ANY);
}

// Reads up to 8 bytes of the call behind those held, across short segments,
// without moving on. Returns how many bytes *v has then; 0 when none can be read.
static __always_inline __u32 first_bytes(struct xfer *x, __u64 *v)
{
	struct conn *c = x->conn;
	__u32 have = c->held_len[x->dir & 1] & 7;
	__u64 buf = x->buf, left = x->seg_left, iov = x->iov, n = x->n;
	__u32 iov_left = x->msgs_left ? 0 : x->iov_left;

	*v = c->held[x->dir & 1];
	for (int i = 0; i < 4; i++) {
		__u64 part = 0;
		__u64 len = 8 - have;

		if (len > left)
			len = left;
		if (len > n)
			len = n;
		if (len) {
			__u32 size = len;

			asm volatile("" : "+r"(size));
			if (size > 8)
				size = 8;
			if (read_bytes(x, &part, size, buf))
				return 0;
			*v |= part << ((have & 7) * 8);
			have += size;
			n -= size;
		}
		if (have >= 8 || !n || !iov || !iov_left)
			break;
		struct iovec next = {};

		if (read_segment(x, iov, &next))
			break;
		buf = next.iov_base;
		left = next.iov_len;
		iov += sizeof(next);
		iov_left--;
	}
	return have > 8 ? 8 : have;
}

#include "http2.h"

static __always_inline void apply_verdict(struct xfer *x)
{
	struct conn *c = x->conn;
	struct settings *s = settings();

	if (!s || c->verdicts == s->verdicts)
		return;
	c->verdicts = s->verdicts;
	if (verdict_is(x, 0, VERDICT_NOT_HTTP))
		c->phase = PHASE_DEAD;
	else if (c->phase == PHASE_OPEN && verdict_is(x, c->exchange, VERDICT_IGNORE))
		c->phase = PHASE_SKIP;
}

// What most calls are: a piece of its own on an open connection of which there is no
// news. Its bytes are read once, into the record, and a head is looked for there. False
// when it is another call, and nothing has been done.
static __always_inline bool cross_whole(struct xfer *x)
{
	struct settings *s = settings();
	struct conn *c = x->conn;
	__u32 d = x->dir & 1, why;
	struct piece *p;

	if (!s || c->phase != PHASE_OPEN || c->verdicts != s->verdicts || c->held_len[d] ||
	    (c->asking && d != c->req_dir) || !(c->flags & CONN_CROSSED) || x->n < 8 ||
	    x->n > PIECE || x->n > x->seg_left ||
	    (s->body_limit && c->message[d] + x->n > s->body_limit))
		return false;
	if (!find_ring(x))
		return false;
	p = try_piece(x, x->n, true, &why);
	if (!p) // whether they begin an exchange is to be known all the same
		return false;
	switch (match_head(*(__u64 *)p->data, 8)) {
	case MATCH_POST:
		if (d == c->req_dir && !in_body(c)) {
			new_exchange(x, PHASE_OPEN);
			x->head = 1;
		}
		break;
	case MATCH_REQUEST:
		if (d == c->req_dir && !in_body(c)) { // its path decides
			discard(x, p);
			return false;
		}
		break;
	case MATCH_RESPONSE:
		if (d != c->req_dir) {
			c->message[d] = 0;
			x->head = 1;
			if (x->n > STATUS)
				note_interim(x, p->data[STATUS]);
		}
		break;
	}
	submit_piece(x, p, x->n);
	return true;
}

// Handles x->n bytes of x->conn. The caller has filled all of x but ring,
// settings and head, and has counted the bytes as seen.
static __always_inline void on_bytes(struct xfer *x)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;
	int match = MATCH_NONE;
	bool fits = false;
	__u8 digit = 0;

	x->head = 0;
	if (cross_whole(x))
		return;
	if (c->phase == PHASE_OPEN || c->phase == PHASE_H2)
		apply_verdict(x);
	if (c->phase == PHASE_DEAD) {
		ignore_held(x);
		ignore(x, x->n);
		return;
	}
	if (c->phase == PHASE_UNKNOWN || (c->phase != PHASE_H2 && d == c->req_dir) ||
	    c->phase == PHASE_OPEN || c->asking) {
		__u64 v = 0;
		__u32 len = first_bytes(x, &v);

		if (len)
			match = match_head(v, len);
		fits = len == c->held_len[d] + x->n;
		if (match == MATCH_PREFIX && !(fits && len < 8))
			match = MATCH_NONE;
		if (c->phase == PHASE_UNKNOWN) {
			if (match == MATCH_NONE && len >= 8 &&
			    (c->flags & CONN_LATE ? h2_request(v) : h2_settings(v)))
				match = MATCH_H2;
			if (match == MATCH_NONE && len >= 3 && tls_record(v))
				c->flags |= CONN_TLS;
			if (match == MATCH_NONE &&
			    (!(c->flags & CONN_LATE) || c->flags & CONN_TLS ||
			     c->strangers++ > MAX_STRANGERS))
				c->phase = len ? PHASE_DEAD : c->phase;
		} else if (d != c->req_dir) {
			if (match != MATCH_RESPONSE)
				match = MATCH_NONE;
		} else if (match == MATCH_RESPONSE || match == MATCH_H2 || in_body(c)) {
			match = MATCH_NONE;
		}
		if (match == MATCH_PREFIX) {
			c->held[d] = v;
			c->held_len[d] = len;
			c->held_time[d] = x->time;
			return;
		}
	}
	switch (match) {
	case MATCH_POST:
		new_exchange(x, PHASE_OPEN);
		x->head = 1;
		break;
	case MATCH_REQUEST: {
		__u64 len = x->n < x->seg_left ? x->n : x->seg_left;

		if (len > PATH_SCAN)
			len = PATH_SCAN;
		// What the kernel itself sends is not looked into, and crosses.
		if (every_head() || x->kernel || path_smells(x->buf, len))
			new_exchange(x, PHASE_OPEN);
		else
			new_exchange(x, PHASE_SKIP);
		x->head = 1;
		break;
	}
	case MATCH_RESPONSE:
		if (c->asking) {
			number_exchange(c, d);
			c->flags |= CONN_RESPONSE;
			c->phase = c->asking == ASKING_OPEN ? PHASE_OPEN : PHASE_SKIP;
			c->asking = ASKING_NOTHING;
		} else if (c->phase == PHASE_UNKNOWN) {
			c->req_dir = !d;
			number_exchange(c, d);
			c->flags |= CONN_RESPONSE;
			// The request of a late connection may have gone by long ago.
			c->phase = c->flags & CONN_LATE ? PHASE_SKIP : PHASE_OPEN;
		}
		c->message[d] = 0;
		x->head = 1;
		if (!read_bytes(x, &digit, 1, x->buf + STATUS - (c->held_len[d] & 7)))
			note_interim(x, digit);
		break;
	case MATCH_H2:
		c->phase = PHASE_H2;
		c->req_dir = x->dir;
		c->exchange = 1;
		x->head = 1;
		// What was held back is of the preface, or else of a first frame's header.
		if (c->held_len[d] && c->held[d] == (PREFACE_START & LOW(c->held_len[d])))
			c->frames[d].left = PREFACE - c->held_len[d];
		else if (c->held_len[d])
			c->frames[d].lost = 1;
		break;
	}
	if (c->phase != PHASE_OPEN && c->phase != PHASE_H2) {
		ignore_held(x);
		ignore(x, x->n);
		return;
	}
	if (!find_ring(x)) {
		ignore_held(x);
		drop(x, x->n, GAP_RING_FULL);
		return;
	}
	remember_process(x);
	if (c->held_len[d])
		cross_held(x);
	x->head = forget(x, x->head);
	alike(x);
	if (c->phase == PHASE_H2 && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))
		cross_frames(x);
	else
		cross(x);
}
