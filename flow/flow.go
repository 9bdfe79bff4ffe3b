// Package flow holds the words the kernel side speaks: which process, which
// connection, which direction, which bytes. It is a leaf: it imports nothing of
// tollwire and knows nothing of what the bytes mean.
package flow

import (
	"fmt"
	"net/netip"
	"time"
)

// Time is nanoseconds on CLOCK_MONOTONIC, as bpf_ktime_get_ns gives them. Zero
// means that the time is not known (a recording without times).
type Time int64

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Proc names a process for as long as the machine is up: the id of its thread
// group and the time it was started, so that a reused id is another process.
type Proc struct {
	PID   uint32 // thread group id in the root PID namespace
	Start uint64 // task_struct.start_boottime of the group leader, nanoseconds since boot
}

// Conn names one connection: a TLS session or a socket of one process.
type Conn struct {
	Proc Proc
	Key  uint64 // address of the TLS session object or of the kernel's struct sock
	Gen  uint64 // grows when the object at Key is freed or reused; never 0 for a live capture
}

func (c Conn) String() string {
	return fmt.Sprintf("pid %d %#x/%d", c.Proc.PID, c.Key, c.Gen)
}

// Dir is a direction as the captured process sees it.
type Dir uint8

const (
	Write Dir = iota // the process sent the bytes
	Read             // the process received the bytes
)

func (d Dir) String() string {
	if d == Write {
		return "write"
	}
	return "read"
}

// Other returns the opposite direction.
func (d Dir) Other() Dir { return d ^ 1 }

// Source is the tap that saw the bytes. Its String is the value of the record
// key tollwire.capture.source and of the metric label "source".
type Source uint8

// The numbers are those of bpf/wire.h.
const (
	SourceNone Source = iota
	SourceOpenSSL
	SourceGoTLS
	SourceGnuTLS
	SourceNSS
	SourceAEADBoringSSL
	SourceAEADAWSLC
	SourceAEADRing
	SourceSocketTracepoint
	SourceSocketKprobe
	SourceSocketFentry
	SourceReplay
	NumSources
)

var sourceNames = [NumSources]string{
	"none", "openssl", "gotls", "gnutls", "nss",
	"aead.boringssl", "aead.aws-lc", "aead.ring",
	"socket.tracepoint", "socket.kprobe", "socket.fentry", "replay",
}

func (s Source) String() string {
	if s < NumSources {
		return sourceNames[s]
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

// GapReason says why bytes in front of a Data are missing.
type GapReason uint8

// The numbers are those of bpf/wire.h. GapIgnored is no loss: a verdict held
// the bytes back. All others are drops; their String is the metric label "reason".
const (
	GapNone       GapReason = iota
	GapIgnored              // a verdict said that nobody needs them
	GapRingFull             // the ring had no room
	GapFault                // the program's memory could not be read
	GapOverLimit            // the message was longer than the configured limit
	GapReorder              // user space waited for them in vain
	GapUnreadable           // bytes that no probe can read (sendfile's pages)
	GapState                // the connection's state could not be kept in the kernel
	GapUnjoined             // it could not be told which connection they belong to
	GapMissed               // moved by a call of which no program was told
	NumGapReasons
)

var gapNames = [NumGapReasons]string{
	"none", "ignored", "ring_full", "page_fault", "over_limit", "reorder", "unreadable", "state", "unjoined", "missed",
}

func (g GapReason) String() string {
	if g < NumGapReasons {
		return gapNames[g]
	}
	return fmt.Sprintf("gap(%d)", uint8(g))
}

// Kind tells the records of the ring apart.
type Kind uint8

const (
	KindData  Kind = 1 // bytes of a connection
	KindEOF   Kind = 2 // direction Dir has ended in order: nothing follows Pos
	KindClose Kind = 3 // the connection is gone: session freed, socket closed
	KindExit  Kind = 4 // the process is gone, and every connection of it
)

// Data is one record of the ring: bytes of one direction of one connection, or
// the end of one. Payload is valid only until the next call to the reader.
type Data struct {
	Kind   Kind
	Conn   Conn
	Source Source
	Dir    Dir
	TID    uint32
	Cgroup uint64 // cgroup v2 id of the task, 0 when unknown
	Peer   netip.AddrPort

	Time Time   // writes: entry of the call; reads: its return
	Pos  uint64 // position of Payload's first byte in its direction, from 0

	// Gap bytes directly before Pos were left out, for GapReason (the worst one
	// when there were several). For KindEOF and KindClose: bytes left out at the end.
	Gap       uint64
	GapReason GapReason

	// Exchange is the kernel's count of request heads on this connection, from 1; a
	// verdict on HTTP/1 names it (on HTTP/2, where it stays 1, the stream). Head: the kernel takes Payload for the start of a head.
	Exchange uint32
	Head     bool
	// Late: the connection was there before the tap, so its first bytes are unknown.
	Late bool

	Payload []byte
}

// Verdict is what user space tells the kernel about an exchange.
type Verdict uint8

const (
	VerdictIgnore  Verdict = 1 // this exchange's bytes are not needed; the next request's head is
	VerdictNotHTTP Verdict = 2 // final for the connection
	VerdictCapture Verdict = 3 // a stream or WebSocket of an LLM call: all of it, however long
)
