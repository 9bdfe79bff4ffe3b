// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What goes through a socket as a stream of TLS records: where each begins, how far the
// stream was followed, and what of it was not.
#pragma once

#include "aead_join.h"

static const struct cursor no_cursor;
static const struct wire no_wire;

// The start of a record has passed through a socket. Returns whether c->p is to be
// delivered.
static __noinline int on_wire(struct cursor *c, struct wire *w, struct stream *s)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 head = s->start[0], prefix = s->start[1], behind = s->start[2];
	__u8 type = head >> 24;
	__u32 len = (head >> 48 & 0xff) << 8 | head >> 56;
	struct record r = {.tls13 = 1, .total = len - TAG};

	if (len <= TAG || (type != TYPE_DATA && type != TYPE_HANDSHAKE && type != TYPE_ALERT))
		return 0;
	for (int i = 0; i < 2; i++) {
		struct cipher_key key = cipher_key(&r, id >> 32, prefix);

		if (c->x.dir == DIR_READ) {
			struct arrival a = {.sock = c->x.key.key, .before = s->sum}, *other;

			other = bpf_map_lookup_elem(&arrivals, &key);
			if (other && other->sock != a.sock)
				a.sock = 0;
			bpf_map_update_elem(&arrivals, &key, &a, BPF_ANY);
		} else {
			struct sealed *found = bpf_map_lookup_elem(&seals, &key);

			if (found) {
				struct sealed done = *found;
				struct plain p = {
					.sock = c->x.key.key,
					.time = done.time,
					.n = done.type == TYPE_DATA || done.unsure ? done.len : 0,
					.source = done.source,
					.dir = DIR_WRITE,
					.kernel = 1,
					.fresh = done.type == TYPE_HANDSHAKE,
					.counted = s->gap,
				};
				__u32 index = done.ticket % SLOTS;
				struct slot *slot = bpf_map_lookup_elem(&slots, &index);

				if (done.alike)
					found->alike--;
				else
					bpf_map_delete_elem(&seals, &key);
				if (!slot || (done.type != TYPE_DATA && done.type != TYPE_HANDSHAKE && !done.unsure))
					return 0;
				if (take(slot))
					p.slot = index + 1;
				if (p.slot && slot->ticket == done.ticket && !done.unsure) {
					slot->waiting = 0;
				} else { // another record is there by now, or may be
					if (p.slot)
						p.counted += p.n;
					else
						p.missing = p.n;
					p.n = 0;
				}
				p.buf = address_of(slot->plain);
				c->p = p;
				s->gap = 0;
				return 1;
			}
		}
		// What it would be in TLS 1.2.
		if (len <= TAG + EXPLICIT_NONCE)
			break;
		r.tls13 = 0;
		r.total = len - TAG - EXPLICIT_NONCE;
		prefix = behind;
	}
	if (c->x.dir == DIR_WRITE && w->source && type == TYPE_DATA) {
		c->p = (struct plain){
			.sock = c->x.key.key,
			.time = c->x.time,
			.missing = len - TAG,
			.counted = s->gap,
			.source = w->source,
			.dir = DIR_WRITE,
		};
		s->gap = 0;
		return 1;
	}
	return 0;
}

// A stream that was lost is picked up where a call's bytes begin with the header of a
// record of data.
static __always_inline bool found_again(struct cursor *c, struct stream *s)
{
	__u8 h[8] = {};

	if (c->x.seg_left < TLS_HEADER || bpf_probe_read_user(h, TLS_HEADER, (void *)c->x.buf))
		return false;
	if (h[0] != TYPE_DATA || h[1] != 3 || h[2] != 3 ||
	    ((__u32)h[3] << 8 | h[4]) > MAX_PLAIN + TAG + EXPLICIT_NONCE)
		return false;
	s->gap += s->unseen;
	s->unseen = 0;
	s->lost = 0;
	return true;
}

static __always_inline void pass(struct cursor *c, __u32 len)
{
	c->x.buf += len;
	c->x.seg_left -= len;
	c->x.n -= len;
}

enum progress {
	GOES_ON,
	FOUND, // c->p is to be delivered
	ENDS,
};

// Takes some of the call's bytes as part of the socket's stream of records.
static __noinline enum progress take_some(struct cursor *c)
{
	struct wire_key key = {.sock = c->x.key.key, .tgid = c->x.key.tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &key);
	enum progress progress = GOES_ON;
	struct stream *s;
	__u32 len, have;

	if (!w || !c->x.n)
		return ENDS;
	s = &w->streams[c->x.dir & 1];
	if (!c->x.seg_left) {
		if (!c->x.iov) {
			if (c->x.dir == DIR_WRITE) // of which n was not known
				c->x.n = 0;
			return ENDS;
		}
		next_segment(&c->x);
		return GOES_ON;
	}
	if (c->skip) {
		len = c->skip < c->x.seg_left ? c->skip : c->x.seg_left;
		c->skip -= len;
		pass(c, len);
		return GOES_ON;
	}
	if (s->lost && !found_again(c, s))
		return ENDS;
	len = s->have < TLS_HEADER ? TLS_HEADER - s->have :
	      s->have < s->want	   ? s->want - s->have :
				     s->left;
	if (len > c->x.seg_left)
		len = c->x.seg_left;
	if (len > c->x.n)
		len = c->x.n;
	have = *(volatile __u8 *)&s->have; // anew, else Linux 6.1 follows what cannot be
	if (have < TLS_HEADER || have < s->want) {
		__u64 at = have, size = len;

		asm volatile("" : "+r"(at), "+r"(size));
		if (at > 20 || size > 21 || // have never more than 21 between them
		    bpf_probe_read_user((__u8 *)s->start + 3 + at, size, (void *)c->x.buf))
			return ENDS;
		s->have = have + len;
		if (have >= TLS_HEADER)
			s->left -= len;
	} else {
		s->left -= len;
	}
	pass(c, len);
	if (c->x.dir == DIR_WRITE)
		s->ahead += len;
	if (have < TLS_HEADER && s->have == TLS_HEADER) {
		__u64 head = s->start[0];

		s->left = (head >> 48 & 0xff) << 8 | head >> 56;
		if (!tls_record(head >> 24) || !s->left ||
		    s->left > MAX_PLAIN + TAG + EXPLICIT_NONCE)
			return ENDS;
		s->want = TLS_HEADER + (s->left < 16 ? s->left : 16);
	} else if (have >= TLS_HEADER && have < s->want && s->have == s->want) {
		if (on_wire(c, w, s))
			progress = FOUND;
	}
	if (s->have >= TLS_HEADER && s->have == s->want && !s->left) {
		__u64 head = s->start[0];

		s->sum += (head >> 48 & 0xff) << 8 | head >> 56;
		s->have = 0;
		s->want = 0;
	}
	return progress;
}

// One step of a call's bytes. Returns whether it is the last. It is no static function, so
// that it is verified once, not for each step.
__noinline int follow(struct cursor *c)
{
	enum progress progress;
	struct slot *slot;
	__u32 index;

	if (!c)
		return 1;
	progress = take_some(c);
	if (progress == FOUND) {
		deliver(&c->p);
		index = c->p.slot - 1;
		slot = bpf_map_lookup_elem(&slots, &index);
		if (slot)
			give(slot);
	}
	return progress == ENDS;
}

// The system calls that move bytes through a socket, and which way.
static __always_inline bool moves(__u32 nr, __u8 *dir)
{
	switch (nr) {
	case NR_WRITE:
	case NR_WRITEV:
	case NR_SENDTO:
	case NR_SENDMSG:
		*dir = DIR_WRITE;
		return true;
	case NR_READ:
	case NR_READV:
	case NR_RECVFROM:
	case NR_RECVMSG:
		*dir = DIR_READ;
		return true;
	}
	return false;
}

// The state of the call's socket, if its process seals or opens records; NULL for every
// other.
static __noinline struct wire *wire_of(struct pt_regs *regs, struct wire_key *key)
{
	struct tcp t = {};
	struct wire *w;

	if (!find_tcp(SYSCALL_ARG1(regs), &t))
		return NULL;
	key->sock = (__u64)t.sk;
	w = bpf_map_lookup_elem(&wires, key);
	if (w && w->ino == t.ino)
		return w;
	bpf_map_update_elem(&wires, key, &no_wire, BPF_ANY);
	w = bpf_map_lookup_elem(&wires, key);
	if (!w)
		return NULL;
	w->ino = t.ino;
	for (__u32 d = 0; d < 2; d++)
		w->streams[d].seq = sequence(t.sk, d);
	return w;
}

// The bytes of a system call: n, or with ~0 all that it was given.
static __noinline struct cursor *cursor_of(struct pt_regs *regs, __u32 nr, const struct wire_key *key,
					   __u8 dir, __u64 n)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct cursor *c;

	bpf_map_update_elem(&cursors, &id, &no_cursor, BPF_ANY);
	c = bpf_map_lookup_elem(&cursors, &id);
	if (!c)
		return NULL;
	c->x.key.key = key->sock;
	c->x.key.tgid = key->tgid;
	c->x.dir = dir;
	c->x.n = n;
	c->x.time = bpf_ktime_get_ns();
	c->x.buf = SYSCALL_ARG2(regs);
	if (nr == NR_SENDMSG || nr == NR_RECVMSG) {
		struct user_msghdr msg = {};

		bpf_probe_read_user(&msg, sizeof(msg), (void *)c->x.buf);
		gather(&c->x, msg.msg_iov, msg.msg_iovlen);
	} else if (nr == NR_READV || nr == NR_WRITEV) {
		gather(&c->x, c->x.buf, SYSCALL_ARG3(regs));
	} else {
		if (n == ~0ULL)
			c->x.n = SYSCALL_ARG3(regs);
		c->x.seg_left = c->x.n;
	}
	return c;
}

// n more bytes of a stream are not followed. It is no stream of records from here on, or
// not yet: perhaps a later call's.
static __always_inline void lose(struct wire *w, __u8 dir, __u64 n)
{
	struct stream *s = &w->streams[dir & 1];

	s->have = s->want = s->left = 0;
	if (!w->source)
		return;
	s->lost = 1;
	s->unseen += n;
}

// Accounts for what the socket has moved since this was asked last: what was followed, n
// bytes of it by a call that returns now, and what went by another system call, by io_uring
// or by another process.
static __always_inline void catch_up(struct wire *w, const struct wire_key *key, __u8 dir, __u64 n)
{
	struct stream *s = &w->streams[dir & 1];
	__u32 before = s->seq, now = sequence((void *)key->sock, dir), count = now - before;
	__u64 moved = before && now && count < MAX_MISSED ? count : n;
	__u64 followed = dir == DIR_WRITE ? s->ahead : n;

	s->seq = now;
	if (moved > followed) {
		lose(w, dir, moved - followed);
		moved = followed;
	}
	if (dir == DIR_WRITE)
		s->ahead -= moved;
}

// What is left of a call's bytes is not followed; of what it sends the part that the
// socket takes is counted then.
static __noinline int lose_rest(struct cursor *c)
{
	struct wire_key key = {.sock = c->x.key.key, .tgid = c->x.key.tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &key);

	if (w)
		lose(w, c->x.dir, c->x.dir == DIR_READ ? c->x.n : 0);
	return 0;
}

#define MAX_STEPS 4096

static __always_inline int follow_all(struct cursor *c)
{
	if (!c)
		return 0;
	for (__u32 i = 0; i < MAX_STEPS; i++)
		if (follow(c))
			break;
	if (c->x.n)
		lose_rest(c);
	return 0;
}
