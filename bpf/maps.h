// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The maps that all taps share. Each object declares them; user space makes them
// once, from core.bpf.c, and hands the same ones to the others.
#pragma once

struct conn_key {
	__u64 key; // address of the TLS session or of the struct sock
	__u32 tgid;
	__u32 source;
};

enum phase {
	PHASE_UNKNOWN, // nothing but, perhaps, the start of a head was seen
	PHASE_OPEN,    // bytes cross
	PHASE_SKIP,    // an exchange that nobody needs; the next request's head is looked for
	PHASE_H2,      // HTTP/2: frames cross
	PHASE_DEAD,    // not HTTP, and nothing will change that
};

enum conn_flags {
	CONN_LATE = 1,     // its first bytes were not seen
	CONN_CROSSED = 2,  // user space knows of it
	CONN_RESPONSE = 4, // a response's head was seen before any request's
	CONN_TLS = 8,      // of a socket: TLS goes through it
};

// One direction of HTTP/2, between two frame headers.
struct frames {
	__u8 head[16]; // have bytes of a frame header, kept back until it is whole
	__u32 left;    // bytes of the frame's payload still to come
	__u8 have;
	__u8 skip; // nobody needs the payload
	__u8 lost; // where frames begin is not known: all bytes cross
	__u8 pad;
};

// A write that begins a request was entered and has not returned.
enum asking {
	ASKING_NOTHING,
	ASKING_OPEN, // its exchange will cross
	ASKING_SKIP, // nobody needs it
};

struct conn {
	__u64 gen;
	__u64 start;
	__u64 cgroup;     // of the task that began the exchange
	__u64 verdicts;   // of settings, when it last looked for its own
	__u64 ino;        // of the socket, 0 for TLS sessions
	__u64 pos[2];
	__u64 gap[2];
	__u64 message[2]; // bytes since the message's head
	__u64 answer_pos; // where the exchange's answer begins in its direction
	__u64 held[2];    // the start of what may be a head: held_len bytes, kept back
	__u64 held_time[2];
	__u32 exchange;
	__u32 strangers;  // calls in a row that began with nothing known, late connections only
	__u32 seq[2];     // of TCP, behind the last call that was seen; 0: not known
	__u8 held_len[2];
	__u8 gap_reason[2];
	__u8 phase;
	__u8 req_dir;
	__u8 flags;
	__u8 asking;
	__u8 family;
	__u16 port;
	__u64 addr[2];
	struct frames frames[2];
};

// A call into a TLS library between its entry and its return. frame tells nested
// calls apart: how deep the stack was at the entry; zero: there is none.
struct call {
	__u64 frame;
	__u64 conn;
	__u64 buf;
	__u64 out; // where the number of bytes will stand, 0: in the return value
	__u64 time;
	__u64 sock; // a TCP socket that was used inside of it
	__u8 dir;
	__u8 on_stack; // buf is a distance from the goroutine's stack.hi
};

// A thread's calls by enum dir: a read that ends a handshake may have the program write
// from a callback.
struct thread {
	__u64 id; // pid_tgid
	struct call calls[2];
};

// Whose call it is that is kept for itself.
struct call_key {
	__u64 task; // Go: tgid; else pid_tgid
	__u64 g;    // Go: the goroutine; else a place that a tap has chosen
};

// A call on a socket between entry and return. By tracepoints only what is known
// of a write at its entry; else the arguments too, which the kernel changes.
struct sock_call {
	__u64 sock;
	__u64 time;
	__u64 size;     // of the buffer
	__u64 buf;      // as in struct xfer
	__u64 seg_left;
	__u64 iov;
	__u32 iov_left;
	__u8 dir;
	__u8 unreadable; // the bytes are not in the program's memory
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct conn_key);
	__type(value, struct conn);
} conns SEC(".maps");

// A thread whose number is the only one with its last bits has a place here, which takes no
// hashing to find; the others are in threads. Who owns a place is settled by owners, as
// kernels before 5.12 have no compare-and-swap.
#define PLACES 32768 // what the kernel counts threads up to, where nobody has told it to go on

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct thread);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, __u64); // pid_tgid
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64); // pid_tgid
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64); // pid_tgid
	__type(value, struct sock_call);
} sock_calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct verdict_key);
	__type(value, __u32);
} verdicts SEC(".maps");

// Processes that have a connection user space knows of.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); // tgid
	__type(value, __u64); // start_boottime
} procs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_SOURCES);
	__type(key, __u32);
	__type(value, struct counters);
} stats SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
};

#define MAX_SHARDS 64

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct settings {
	__u32 shards;     // rings in use
	__u32 self;       // our own thread group, never captured
	__u64 body_limit; // bytes a message and direction
	__u64 zero;       // always 0, which the verifier does not know
	__u64 verdicts;   // grows with each verdict
	__u64 every_head; // not 0: the head of every HTTP/1 request crosses, whatever its path
	__u32 waiting[MAX_SHARDS]; // not 0: the ring's reader is to be woken; else it looks by itself
};

// Written by user space before the first probe is attached; verdicts, every_head and
// waiting later, too.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} config SEC(".maps");
