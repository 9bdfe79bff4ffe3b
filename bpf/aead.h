// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The state of the cipher tap: the record that a thread seals or opens, plaintext
// that waits for its ciphertext to be sent, and how far each socket's stream of
// TLS records was followed.
#pragma once

#include "syscalls.h"
#include "tcp.h"

// RFC 8446, 5.1 and RFC 5246, 6.2.1.
enum content_type {
	TYPE_ALERT = 21,
	TYPE_HANDSHAKE = 22,
	TYPE_DATA = 23,
};

#define TAG 16            // bytes, of AES-GCM and of ChaCha20-Poly1305
#define EXPLICIT_NONCE 8  // bytes in front of an AES-GCM ciphertext in TLS 1.2
#define TLS_HEADER 5      // bytes
#define MAX_PLAIN 16640   // 2^14 bytes, one of type, 255 of padding (RFC 8446, 5.4)
#define SLOTS 512         // records that may wait to be sent

enum stage {
	STAGE_NONE,
	STAGE_HEADER, // its header was authenticated, its bytes are to come
	STAGE_BYTES,  // they are being sealed or opened
	STAGE_BLOCK,  // so is a copy of them, one block
};

// Plaintext that belongs to a connection: n bytes at buf.
struct plain {
	__u64 sock;
	__u64 buf;
	__u64 time;
	__u64 missing; // bytes before it that were not seen
	__u64 counted; // and more, which were counted when they were given up
	__u32 n;
	__u32 source;
	__u8 dir;
	__u8 kernel;
	__u8 fresh; // the connection's first record, before any data
	__u16 slot; // that the bytes are in, from 1
};

// One TLS record on the thread that works on it.
struct record {
	__u64 acc;      // address of GHASH's accumulator, which names the cipher's context
	__u64 first[2]; // its value after the header
	__u64 hashed;   // what GHASH worked on after the header
	__u64 in;
	__u64 out;
	__u64 time;
	__u64 ticket; // of the slot with its plaintext
	__u64 sock;   // from which it was read
	__u64 before; // bytes of records read there before it
	__u64 small[2]; // the plaintext of one that no function works on as a whole
	__u32 total;  // bytes of ciphertext
	__u32 source;
	__u8 stage;
	__u8 dir;
	__u8 tls13;
	__u8 type; // as its header says
	__u8 chacha;
	__u8 tail; // what is behind the last whole block was authenticated
	struct plain plain; // what was opened; the stack has no room for it
};

// A ciphertext is known by its first bytes and its length.
struct cipher_key {
	__u64 prefix;
	__u32 tgid;
	__u16 total;
	__u16 at; // bytes between header and ciphertext
};

// A sealed record that was not sent yet.
struct sealed {
	__u64 ticket;
	__u64 time;
	__u32 source;
	__u16 len;
	__u8 type;
	__u8 alike;  // more that wait and are known by the same
	__u8 unsure; // which of them comes
};

struct slot {
	__u64 ticket;
	__u32 waiting; // bytes of data that were not sent yet
	__u32 source;
	__u64 taken; // by a task that fills or reads it
	__u8 plain[MAX_PLAIN];
};

// A record that was read from a socket and not opened yet.
struct arrival {
	__u64 sock; // 0: from more than one
	__u64 before;
};

// One direction of a socket as a stream of TLS records. What is sent is followed at the
// entry of the call: its answer may be read before the call returns.
struct stream {
	__u64 sum;    // bytes of records so far
	__u64 taken;  // of those that were opened or found sealed
	__u64 ahead;  // bytes that were followed, and not taken by the socket yet
	__u64 unseen; // bytes that were not followed since the stream was lost
	__u64 gap;    // bytes that its next record's plaintext comes behind, counted elsewhere
	__u64 start[6]; // header and first bytes of the current record, from its byte 3 on;
	                // more room than they take, for the verifier
	__u32 left;  // bytes of the current record still to come
	__u32 seq;   // of TCP, behind the last call that was followed; 0: not known
	__u8 have;   // bytes in start
	__u8 want;   // in start, for the current record
	__u8 lost;   // where a record begins is not known
};

struct wire {
	__u64 ino;
	__u32 source; // of the connection, 0: none yet
	struct stream streams[2];
};

struct wire_key {
	__u64 sock;
	__u64 tgid;
};

// A system call's bytes while they are followed. Before Linux 6.13 a program and all
// that it calls have 512 bytes of stack together, so this stands in a map.
struct cursor {
	struct xfer x;
	__u64 skip;     // bytes that were followed when they were first to be sent
	struct plain p; // of the record that was found sealed
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64); // pid_tgid
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64); // pid_tgid
	__type(value, struct cursor);
} cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64); // tickets given out
} tickets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct cipher_key);
	__type(value, struct sealed);
} seals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct cipher_key);
	__type(value, struct arrival);
} arrivals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct wire_key);
	__type(value, struct wire);
} wires SEC(".maps");

// Processes that have sealed or opened a TLS record: only their sockets are followed.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); // tgid
	__type(value, __u8);
} sealers SEC(".maps");
