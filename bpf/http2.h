// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// HTTP/2 frame by frame (RFC 9113, 4.1 and 6): header blocks cross whatever they are
// about, since the next one cannot be read without them; the DATA of a stream that
// nobody needs is held back, and so is what only keeps a connection going. What crosses
// is whole frames, or a DATA frame's header where it ends a stream.
#pragma once

enum frame_type {
	FRAME_DATA,
	FRAME_HEADERS,
	FRAME_PRIORITY,
	FRAME_RST_STREAM,
	FRAME_SETTINGS,
	FRAME_PUSH_PROMISE,
	FRAME_PING,
	FRAME_GOAWAY,
	FRAME_WINDOW_UPDATE,
	FRAME_CONTINUATION,
};

#define FRAME_HEADER 9
#define PREFACE 24
#define PREFACE_START W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T')
#define END_STREAM 1
// Of a frame that is neither DATA nor of a fixed length; far above what anyone declares.
#define MAX_FRAME (1 << 20)
// Rounds of one call: a frame takes up to five.
#define MAX_FRAME_STEPS (1 << 14)

enum fate {
	FATE_CROSS,
	FATE_SKIP,   // the whole frame
	FATE_HEADER, // crosses, and the payload does not
	FATE_LOST,   // this is no frame
};

static __always_inline enum fate frame_fate(struct xfer *x, const __u8 *b, __u32 *len)
{
	struct verdict_key key = {.key = x->key.key, .gen = x->conn->gen};
	__u32 id = (__u32)b[5] << 24 | (__u32)b[6] << 16 | (__u32)b[7] << 8 | b[8];
	__u32 *verdict;

	*len = (__u32)b[0] << 16 | (__u32)b[1] << 8 | b[2];
	if (*(__u64 *)b == PREFACE_START) {
		*len = PREFACE - FRAME_HEADER;
		return FATE_CROSS;
	}
	if (id >> 31)
		return FATE_LOST;
	switch (b[3]) {
	case FRAME_DATA:
		if (!id)
			return FATE_LOST;
		key.exchange = id;
		verdict = bpf_map_lookup_elem(&verdicts, &key);
		if (!verdict || *verdict != VERDICT_IGNORE)
			return FATE_CROSS;
		return b[4] & END_STREAM ? FATE_HEADER : FATE_SKIP;
	case FRAME_PRIORITY:
		return *len == 5 ? FATE_SKIP : FATE_LOST;
	case FRAME_PING:
		return *len == 8 && !id ? FATE_SKIP : FATE_LOST;
	case FRAME_WINDOW_UPDATE:
		return *len == 4 ? FATE_SKIP : FATE_LOST;
	case FRAME_SETTINGS:
		return !id && *len % 6 == 0 && *len <= MAX_FRAME ? FATE_CROSS : FATE_LOST;
	}
	return *len <= MAX_FRAME ? FATE_CROSS : FATE_LOST;
}

static __always_inline void move_on(struct xfer *x, __u64 n)
{
	n = forget(x, n);
	x->buf += n;
	x->seg_left -= n;
	x->n -= n;
}

// The x->run bytes at x->buf cross.
static __always_inline int cross_run(struct xfer *x)
{
	__u64 len = forget(x, x->run);

	if (len > PIECE)
		len = PIECE;
	cross_piece(x, len, true);
	move_on(x, len);
	x->run = forget(x, 0);
	return 0;
}

static __always_inline int whole_header(struct xfer *x, struct frames *f, enum fate fate, __u32 len)
{
	f->left = len;
	f->skip = fate == FATE_SKIP || fate == FATE_HEADER;
	f->lost = fate == FATE_LOST;
	f->have = 0;
	return 0;
}

// One round: a run of bytes crosses, a new segment, a part of a payload, or a frame
// header. The bytes before x->buf + x->run are decided. 1 ends the loop.
static __noinline int frame_step(__u32 i, struct xfer *x)
{
	struct conn *c = x->conn;
	__u32 d = x->dir & 1;
	struct frames *f = &c->frames[d];
	__u64 run = forget(x, x->run), room = x->seg_left - run, len;
	__u8 head[16] __attribute__((aligned(8))) = {};
	enum fate fate;
	__u32 payload = 0;

	if (room > x->n - run)
		room = x->n - run;
	if (!room || run >= PIECE) {
		if (run)
			return cross_run(x);
		if (!x->n || !x->iov)
			return 1;
		next_segment(x);
		return 0;
	}
	if (f->lost || (f->left && !f->skip)) {
		len = PIECE - run;
		if (len > room)
			len = room;
		if (!f->lost) {
			if (len > f->left)
				len = f->left;
			f->left -= len;
		}
		x->run = forget(x, run + len);
		return 0;
	}
	if (f->left) {
		if (run)
			return cross_run(x);
		len = f->left < room ? f->left : room;
		f->left -= len;
		ignore(x, len);
		move_on(x, len);
		return 0;
	}
	if (!f->have && room >= FRAME_HEADER && run + FRAME_HEADER <= PIECE) {
		if (read_bytes(x, head, FRAME_HEADER, x->buf + run)) {
			f->lost = 1; // and the copy will say that it is a fault
			return 0;
		}
		fate = frame_fate(x, head, &payload);
		if (fate == FATE_SKIP) {
			if (run)
				return cross_run(x);
			ignore(x, FRAME_HEADER);
			move_on(x, FRAME_HEADER);
		} else {
			x->run = forget(x, run + FRAME_HEADER);
		}
		return whole_header(x, f, fate, payload);
	}
	// A header that lies in two calls or segments, byte by byte.
	if (run)
		return cross_run(x);
	if (!f->have)
		c->held_time[d] = x->time;
	if (read_bytes(x, &f->head[f->have & 15], 1, x->buf))
		f->lost = 1;
	f->have++;
	move_on(x, 1);
	if (f->have < FRAME_HEADER && !f->lost)
		return 0;
	__builtin_memcpy(head, f->head, sizeof(head));
	fate = f->lost ? FATE_LOST : frame_fate(x, head, &payload);
	if (fate == FATE_SKIP)
		ignore(x, FRAME_HEADER);
	else
		cross_header(x, f->have);
	return whole_header(x, f, fate, payload);
}

// Copies the frames of the call that somebody needs.
static __noinline __attribute__((unused)) int cross_frames(struct xfer *x)
{
	x->run = forget(x, 0);
	// Kernels without bpf_loop never come here, but want every function to be called.
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))
		return frame_step(0, x);
	bpf_loop(MAX_FRAME_STEPS, frame_step, x, 0);
	if (x->n) {
		drop(x, x->n, GAP_UNREADABLE);
		x->conn->frames[x->dir & 1].lost = 1;
	}
	return 0;
}
