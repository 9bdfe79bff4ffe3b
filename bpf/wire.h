// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The contract between the kernel side and package probes. Go's types are
// generated from this file; nothing here is copied by hand. The numbers of
// source, kind, gap_reason, dir and verdict are those of package flow.
#pragma once

enum source {
	SOURCE_NONE,
	SOURCE_OPENSSL,
	SOURCE_GOTLS,
	SOURCE_GNUTLS,
	SOURCE_NSS,
	SOURCE_AEAD_BORINGSSL,
	SOURCE_AEAD_AWSLC,
	SOURCE_AEAD_RING,
	SOURCE_SOCKET_TRACEPOINT,
	SOURCE_SOCKET_KPROBE,
	SOURCE_SOCKET_FENTRY,
	SOURCE_REPLAY,
	NUM_SOURCES,
};

enum kind {
	KIND_DATA = 1,
	KIND_EOF = 2,
	KIND_CLOSE = 3,
	KIND_EXIT = 4,
};

enum dir {
	DIR_WRITE,
	DIR_READ,
};

enum gap_reason {
	GAP_NONE,
	GAP_IGNORED,
	GAP_RING_FULL,
	GAP_FAULT,
	GAP_OVER_LIMIT,
	GAP_REORDER,
	GAP_UNREADABLE,
	GAP_STATE,
	GAP_UNJOINED,
	GAP_MISSED,
	NUM_GAP_REASONS,
};

enum verdict {
	VERDICT_IGNORE = 1,
	VERDICT_NOT_HTTP = 2,
	VERDICT_CAPTURE = 3,
};

enum hdr_flags {
	HDR_HEAD = 1, // the payload is taken for the start of a head
	HDR_LATE = 2, // the connection was there before the tap
};

// Every record of the ring: a struct hdr, len bytes of payload, and room to the
// end of its size class that has no meaning.
struct hdr {
	__u64 time;   // CLOCK_MONOTONIC, ns; writes: entry of the call, reads: its return
	__u64 key;    // address of the TLS session or of the struct sock
	__u64 gen;    // grows when the object at key is reused
	__u64 pos;    // of the payload's first byte in its direction
	__u64 gap;    // bytes left out directly before pos
	__u64 start;  // start_boottime of the process, ns
	__u64 cgroup; // cgroup v2 id of the task that began the exchange (on HTTP/2 the connection)
	__u32 pid;    // thread group
	__u32 tid;
	__u32 len;
	__u32 exchange; // request heads on this connection so far
	__u8 kind;
	__u8 dir;
	__u8 source;
	__u8 flags;
	__u8 gap_reason;
	__u8 family; // 0 (peer unknown), AF_INET, AF_INET6
	__u16 port;  // of the peer, host order
	__u8 addr[16];
};

// What user space has decided (enum verdict) about one exchange of one connection,
// or about the connection.
struct verdict_key {
	__u64 key;
	__u64 gen;
	__u32 exchange; // HTTP/1: its number; HTTP/2: the stream's; 0: the connection
	__u32 pad;
};

// Bytes of one tap on one CPU. seen is counted from the calls' return values
// before anything else happens to them, and added atomically, since a task may be
// preempted in a probe, so that
// seen = submitted + ignored + the sum of dropped, but for bytes that are held.
struct counters {
	__u64 calls;
	__u64 seen;
	__u64 submitted;
	__u64 records;
	__u64 ignored;
	__u64 dropped[NUM_GAP_REASONS];
	__u64 lost_ends; // records of an end that no ring had room for
};
