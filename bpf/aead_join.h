// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Plaintext and the connection that it belongs to. What was sealed waits in a slot until
// its ciphertext is sent; of what was read it is remembered from which socket it came.
#pragma once

#include "aead.h"

static __always_inline __u64 low_bytes(__u64 v, __u32 n)
{
	return n >= 8 ? v : v & ((1ULL << ((n & 7) * 8)) - 1);
}

// The address of something of ours as a plain number.
static __always_inline __u64 address_of(const void *p)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &p);
	return address;
}

static __always_inline struct cipher_key cipher_key(const struct record *r, __u32 tgid, __u64 prefix)
{
	return (struct cipher_key){
		.prefix = low_bytes(prefix, r->total),
		.tgid = tgid,
		.total = r->total,
		.at = r->tls13 || r->chacha ? 0 : EXPLICIT_NONCE,
	};
}

// The connection of a record's socket; NULL when its state cannot be kept.
static __noinline struct conn *plain_conn(struct plain *p, const struct conn_key *key)
{
	struct wire_key at = {.sock = p->sock, .tgid = key->tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &at);
	struct conn *c = bpf_map_lookup_elem(&conns, key);

	if (!w)
		return NULL;
	if (c && c->ino == w->ino) {
		w->source = p->source; // which was forgotten with a wire that the map had no room for
		return c;
	}
	c = conn_new(key, !p->fresh);
	if (!c)
		return NULL;
	c->ino = w->ino;
	set_peer(c, (struct sock *)p->sock);
	w->source = p->source;
	return c;
}

// Adds bytes of plaintext to their connection. It is no static function, so that it is
// verified once, not for each way to it.
__noinline int deliver(struct plain *p)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (!p)
		return 0;
	struct xfer x = {
		.key = {.key = p->sock, .tgid = id >> 32, .source = p->source},
		.counters = counters_of(p->source),
		.time = p->time,
		.buf = p->buf,
		.seg_left = p->n,
		.n = p->n,
		.tid = id,
		.dir = p->dir,
		.kernel = p->kernel,
	};

	if (!x.counters)
		return 0;
	if (!p->fresh) {
		__sync_fetch_and_add(&x.counters->calls, 1);
		__sync_fetch_and_add(&x.counters->seen, p->n);
	}
	x.conn = plain_conn(p, &x.key);
	if (!x.conn) {
		__sync_fetch_and_add(&x.counters->dropped[GAP_STATE], p->n);
		return 0;
	}
	if (p->missing || p->counted) {
		ignore_held(&x);
		x.conn->frames[x.dir & 1].lost = 1;
		leave_out(&x, p->counted, GAP_UNJOINED);
		__sync_fetch_and_add(&x.counters->seen, p->missing);
		drop(&x, p->missing, GAP_UNJOINED);
	}
	if (p->n)
		on_bytes(&x);
	return 0;
}

// Bytes of which it cannot be told whose they are.
static __always_inline int unjoined(__u32 source, __u64 n)
{
	struct counters *c = counters_of(source);

	if (!c)
		return 0;
	__sync_fetch_and_add(&c->calls, 1);
	__sync_fetch_and_add(&c->seen, n);
	__sync_fetch_and_add(&c->dropped[GAP_UNJOINED], n);
	return 0;
}

// A slot is one task's while it is filled or read, however long that is preempted.
static __always_inline bool take(struct slot *s)
{
	return !__sync_val_compare_and_swap(&s->taken, 0, 1);
}

static __always_inline void give(struct slot *s)
{
	__sync_fetch_and_and(&s->taken, 0);
}

// Keeps the plaintext of a record that is about to be sealed. One that is not kept is
// missed when its ciphertext is sent.
static __always_inline bool keep_plain(struct record *r, __u64 from, __u32 n, bool kernel)
{
	__u32 zero = 0, index;
	__u64 *next = bpf_map_lookup_elem(&tickets, &zero), size = n;
	struct slot *s;

	if (!next || n > MAX_PLAIN)
		return false;
	r->ticket = __sync_fetch_and_add(next, 1) + 1;
	index = r->ticket % SLOTS;
	s = bpf_map_lookup_elem(&slots, &index);
	if (!s || !take(s))
		return false;
	if (s->waiting) // it was never seen to be sent
		unjoined(s->source, s->waiting);
	s->waiting = 0;
	s->ticket = 0;
	asm volatile("" : "+r"(size)); // else the compiler moves the check to where it is no use
	if (size <= MAX_PLAIN && !(kernel ? bpf_probe_read_kernel(s->plain, size, (void *)from) :
					    bpf_probe_read_user(s->plain, size, (void *)from)))
		s->ticket = r->ticket;
	give(s);
	return s->ticket == r->ticket;
}

static __noinline int seal_waits(struct record *r, __u32 tgid, __u64 prefix, __u32 len, __u8 type)
{
	struct cipher_key key = cipher_key(r, tgid, prefix);
	__u32 index = r->ticket % SLOTS;
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);
	struct sealed s = {
		.ticket = r->ticket,
		.time = r->time,
		.source = r->source,
		.len = len,
		.type = type,
	}, *other;

	if (slot && slot->ticket == r->ticket && type == TYPE_DATA) {
		slot->source = r->source;
		slot->waiting = len;
	}
	// Of very short records two may be known by the same. Which one is sent cannot be
	// told then, unless the other's plaintext is gone.
	other = bpf_map_lookup_elem(&seals, &key);
	if (other) {
		index = other->ticket % SLOTS;
		slot = bpf_map_lookup_elem(&slots, &index);
		if (slot && slot->ticket == other->ticket) {
			s.unsure = 1;
			s.alike = other->alike + 1;
		}
	}
	bpf_map_update_elem(&seals, &key, &s, BPF_ANY);
	return 0;
}

// Finds the socket that a record's ciphertext was read from.
static __always_inline bool find_arrival(struct record *r, __u32 tgid, __u64 prefix)
{
	struct cipher_key key = cipher_key(r, tgid, prefix);
	struct arrival *a = bpf_map_lookup_elem(&arrivals, &key);

	r->sock = 0;
	if (!a)
		return false;
	r->sock = a->sock;
	r->before = a->before;
	bpf_map_delete_elem(&arrivals, &key);
	return r->sock;
}
