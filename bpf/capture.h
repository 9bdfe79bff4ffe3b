// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What happens to the bytes of one call, whichever tap saw it: they are counted,
// the connection's phase decides whether they cross, and those that do are
// copied into the connection's ring in pieces, each with its position and with
// the number of bytes that are missing before it.
#pragma once

#include "kernel.h"
#include "wire.h"
#include "maps.h"
#include "http.h"

#define PIECE 16384
// Pieces of one call: 16 MiB where the kernel has bpf_loop (5.17), else what the
// verifier has the patience to walk through.
#define MAX_PIECES 1024
#define MAX_PIECES_UNROLLED 24
// Calls on a late connection that may begin with nothing known, before it is given up.
#define MAX_STRANGERS 4096

// One call: whose it is and where its bytes lie. The bytes are seg_left bytes at
// buf, then the segments of iov, then those of the messages at msgs.
struct xfer {
	struct conn_key key;
	struct conn *conn;
	struct counters *counters;
	void *ring;
	const volatile __u32 *waiting; // not 0: the ring's reader is to be woken
	struct settings *settings;
	__u64 time;
	__u64 buf;
	__u64 seg_left;
	__u64 iov;
	__u64 msgs;
	__u64 msg_left; // bytes of the message that are in no segment yet
	__u64 n; // bytes of the call not accounted for yet
	__u32 iov_left;
	__u32 msgs_left;
	__u64 run; // bytes at buf that will cross together
	__u32 tid;
	__u8 dir;
	__u8 head;       // the next piece starts a head
	__u8 kernel;     // the bytes lie in the kernel's memory, in one segment
	__u8 kernel_iov; // the segments are listed there
};

static __always_inline struct settings *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline bool is_self(__u32 tgid)
{
	struct settings *s = settings();

	return !s || s->self == tgid;
}

static __always_inline bool every_head(void)
{
	struct settings *s = settings();

	return s && s->every_head;
}

static __always_inline struct counters *counters_of(__u32 source)
{
	return bpf_map_lookup_elem(&stats, &source);
}

// The end of a direction, a connection or a process that no ring had room for.
static __always_inline void count_lost_end(__u32 source)
{
	struct counters *n = counters_of(source);

	if (n)
		__sync_fetch_and_add(&n->lost_ends, 1);
}

static __always_inline __u64 process_start(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, group_leader, start_boottime);
}

// Finds the connection's ring; false when there is none.
static __always_inline bool find_ring(struct xfer *x)
{
	struct settings *s = settings();
	__u64 h = (x->key.key >> 4) ^ (__u64)x->key.tgid << 32;

	if (!s || !s->shards)
		return false;
	h *= 0x9e3779b97f4a7c15ULL; // 2^64 / the golden ratio: spreads all bits upwards
	__u32 shard = (__u32)(h >> 40) % s->shards;

	x->settings = s;
	x->ring = bpf_map_lookup_elem(&rings, &shard);
	x->waiting = bpf_map_lookup_elem(&waiting, &shard);
	return x->ring && x->waiting;
}

// Submits a record that was counted. To wake a reader costs the call several times what
// the record does, so it looks by itself while it finds any.
static __always_inline void submit(struct xfer *x, void *record)
{
	bpf_ringbuf_submit(record, *x->waiting ? 0 : BPF_RB_NO_WAKEUP);
}

static const struct conn no_conn;

// Makes a new connection of what the key says; NULL when the map refuses.
static __noinline __attribute__((unused)) struct conn *conn_new(const struct conn_key *key, bool late)
{
	if (bpf_map_update_elem(&conns, key, &no_conn, BPF_ANY))
		return NULL;
	struct conn *c = bpf_map_lookup_elem(&conns, key);

	if (!c)
		return NULL;
	c->gen = (bpf_ktime_get_ns() & ~0xffULL) | (bpf_get_smp_processor_id() & 0xff);
	c->start = process_start();
	c->cgroup = bpf_get_current_cgroup_id();
	c->flags = late ? CONN_LATE : 0;
	return c;
}

// The other end of the socket, as far as the kernel knows it.
static __always_inline void set_peer(struct conn *c, struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family == AF_INET)
		c->addr[0] = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	else if (family == AF_INET6)
		BPF_CORE_READ_INTO(&c->addr, sk, __sk_common.skc_v6_daddr);
	else
		return;
	c->port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	c->family = family;
}

static __always_inline void count_submitted(struct xfer *x, __u64 n)
{
	__sync_fetch_and_add(&x->counters->submitted, n);
	__sync_fetch_and_add(&x->counters->records, 1);
	x->conn->pos[x->dir & 1] += n;
	x->conn->message[x->dir & 1] += n;
}

static __always_inline void leave_out(struct xfer *x, __u64 n, __u8 reason)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;

	c->pos[d] += n;
	c->gap[d] += n;
	if (c->gap_reason[d] < reason)
		c->gap_reason[d] = reason;
}

static __always_inline void ignore(struct xfer *x, __u64 n)
{
	__sync_fetch_and_add(&x->counters->ignored, n);
	leave_out(x, n, GAP_IGNORED);
}

static __always_inline void drop(struct xfer *x, __u64 n, __u32 reason)
{
	if (reason < NUM_GAP_REASONS)
		__sync_fetch_and_add(&x->counters->dropped[reason], n);
	leave_out(x, n, reason);
}

static __always_inline void fill(struct hdr *h, struct xfer *x, __u8 kind, __u32 len)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;

	h->time = x->time;
	h->key = x->key.key;
	h->gen = c->gen;
	h->pos = c->pos[d];
	h->gap = c->gap[d];
	h->start = c->start;
	h->cgroup = c->cgroup;
	h->pid = x->key.tgid;
	h->tid = x->tid;
	h->len = len;
	h->exchange = c->exchange;
	h->kind = kind;
	h->dir = d;
	h->source = x->key.source;
	h->flags = (x->head ? HDR_HEAD : 0) | (c->flags & CONN_LATE ? HDR_LATE : 0);
	h->gap_reason = c->gap_reason[d];
	h->family = c->family;
	h->port = c->port;
	((__u64 *)h->addr)[0] = c->addr[0];
	((__u64 *)h->addr)[1] = c->addr[1];
	c->gap[d] = 0;
	c->gap_reason[d] = GAP_NONE;
	x->head = 0;
}

static __always_inline long read_bytes(struct xfer *x, void *to, __u32 size, __u64 from)
{
	if (x->kernel)
		return bpf_probe_read_kernel(to, size, (void *)from);
	return bpf_probe_read_user(to, size, (void *)from);
}

struct piece {
	struct hdr hdr;
	__u8 data[];
};

// Returns v, of which the verifier then knows nothing. It would otherwise tell
// the rounds of a loop apart by what is left to do, and never see two alike.
static __always_inline __u64 forget(struct xfer *x, __u64 v)
{
	return v + *(volatile __u64 *)&x->settings->zero;
}

// Lets the verifier forget which kind of call it is. It would follow each of them
// through all that is to come.
static __always_inline void alike(struct xfer *x)
{
	x->dir = forget(x, x->dir);
	x->n = forget(x, x->n);
	x->buf = forget(x, x->buf);
	x->seg_left = forget(x, x->seg_left);
	x->iov = forget(x, x->iov);
	x->iov_left = forget(x, x->iov_left);
	x->msg_left = forget(x, x->msg_left);
	x->msgs = forget(x, x->msgs);
	x->msgs_left = forget(x, x->msgs_left);
}

// Copies the len bytes at x->buf, PIECE at most, into a record that is still to be
// submitted; NULL when they had to be dropped. Records come in size classes, so that the
// ring is not filled with air; the lower ones can be left out.
static __always_inline struct piece *copy_piece(struct xfer *x, __u64 len, bool small)
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
	if (!p) {
		drop(x, len, GAP_RING_FULL);
		return NULL;
	}
	if (read_bytes(x, p->data, size, x->buf)) {
		bpf_ringbuf_discard(p, 0);
		drop(x, len, GAP_FAULT);
		return NULL;
	}
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
	__u32 d = x->dir & 1;
	struct piece *p;

	if (!s || c->phase != PHASE_OPEN || c->verdicts != s->verdicts || c->held_len[d] ||
	    (c->asking && d != c->req_dir) || !(c->flags & CONN_CROSSED) || x->n < 8 ||
	    x->n > PIECE || x->n > x->seg_left ||
	    (s->body_limit && c->message[d] + x->n > s->body_limit))
		return false;
	if (!find_ring(x))
		return false;
	p = copy_piece(x, x->n, true);
	if (!p)
		return true;
	switch (match_head(*(__u64 *)p->data, 8)) {
	case MATCH_POST:
		if (d == c->req_dir && !in_body(c)) {
			new_exchange(x, PHASE_OPEN);
			x->head = 1;
		}
		break;
	case MATCH_REQUEST:
		if (d == c->req_dir && !in_body(c)) { // its path decides
			bpf_ringbuf_discard(p, 0);
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
