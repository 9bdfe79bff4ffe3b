// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Where an exchange of HTTP/1, a request and its answer, begins.
#pragma once

#include "xfer.h"
#include "http.h"

#define STATUS 9 // bytes of a response before its status

// A number for the exchange whose answer begins at what comes next in its direction.
static __always_inline void number_exchange(struct conn *c, __u32 answers)
{
	c->exchange++;
	c->answer_pos = c->pos[answers & 1];
}

// Whether a request crosses of whose answer nothing was seen yet. What comes in its
// direction is its body then, whatever it looks like: a prompt may have an access log in
// it. Who sends the next request without waiting has it decoded all the same.
static __always_inline bool in_body(struct conn *c)
{
	return c->phase == PHASE_OPEN && c->pos[!c->req_dir] == c->answer_pos;
}

// Of a response whose status begins with that digit: an interim one, such as 100
// Continue, is no answer. Its call has nothing else in it, as far as can be known here.
static __always_inline void note_interim(struct xfer *x, __u8 digit)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;

	if (digit == '1')
		c->answer_pos = c->pos[d] + c->held_len[d] + x->n;
}

static __always_inline void new_exchange(struct xfer *x, __u8 phase)
{
	struct conn *c = x->conn;

	c->req_dir = x->dir;
	c->cgroup = bpf_get_current_cgroup_id();
	if (!(c->flags & CONN_RESPONSE))
		number_exchange(c, !x->dir);
	c->flags &= ~CONN_RESPONSE;
	c->asking = ASKING_NOTHING;
	c->message[0] = 0;
	c->message[1] = 0;
	c->phase = phase;
	c->strangers = 0;
}

// Notes at the entry of a write whether its n bytes at buf begin a request. The write
// is counted at its return, and another thread may read the answer before that: it
// would be taken for the end of the exchange before.
static __noinline __attribute__((unused)) int expect_answer(struct conn *c, __u64 buf, __u64 n)
{
	__u64 v = 0;

	if (!c || c->phase == PHASE_H2 || c->phase == PHASE_DEAD || c->req_dir != DIR_WRITE ||
	    in_body(c))
		return 0;
	if (n < sizeof(v) || bpf_probe_read_user(&v, sizeof(v), (void *)buf))
		return 0;
	switch (match_head(v, sizeof(v))) {
	case MATCH_POST:
		c->asking = ASKING_OPEN;
		break;
	case MATCH_REQUEST:
		if (every_head() || path_smells(buf, n < PATH_SCAN ? n : PATH_SCAN))
			c->asking = ASKING_OPEN;
		else
			c->asking = ASKING_SKIP;
		break;
	}
	return 0;
}
