// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// One call that moves bytes: whose it is, where they lie, which ring they go to, and how
// they are accounted for: what was seen crosses, is ignored or is dropped, and a record
// says what is missing before it.
#pragma once

#include "kernel.h"
#include "wire.h"
#include "maps.h"

// One call: whose it is and where its bytes lie. The bytes are seg_left bytes at
// buf, then the segments of iov, then those of the messages at msgs.
struct xfer {
	struct conn_key key;
	struct conn *conn;
	struct counters *counters;
	void *ring;
	const volatile __u32 *waiting; // of the ring
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
	x->waiting = &s->waiting[shard & (MAX_SHARDS - 1)];
	return x->ring;
}

// Submits a record that was counted. To wake a reader costs the call several times what
// the record does, so it looks by itself while it finds any.
static __always_inline void submit(struct xfer *x, void *record)
{
	bpf_ringbuf_submit(record, *x->waiting ? 0 : BPF_RB_NO_WAKEUP);
}

// Gives a record back. A reader that waits is woken for it: it would not be for what comes
// behind, before it has read that far.
static __always_inline void discard(struct xfer *x, void *record)
{
	bpf_ringbuf_discard(record, *x->waiting ? 0 : BPF_RB_NO_WAKEUP);
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
