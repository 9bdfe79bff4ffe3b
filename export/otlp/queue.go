package otlp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// queue is a first-in first-out queue of messages on disk, bounded in bytes: when it
// is full the oldest go. It outlives the process; what was sent but not yet marked so
// when the process died is sent again.
//
// Messages stand in segment files, each with a header of size, checksum and the
// number of items in it. A segment is deleted once all of it was sent. The position
// reached stands in a file of its own.
type queue struct {
	dir   string
	limit int64

	mu      sync.Mutex
	ready   sync.Cond
	closed  bool
	seqs    []uint64 // of the segments, the oldest first; the last is written to
	sizes   map[uint64]int64
	items   map[uint64]int // not yet sent
	total   int64
	tail    *os.File
	head    *os.File // seqs[0], opened for reading
	pos     int64    // in head
	pending peeked   // last peeked at: who sends it says what becomes of it
	cursor  *os.File

	dropped uint64 // items
}

// peeked is a message's length with its header, and its items.
type peeked struct {
	size  int64
	items int
}

const (
	queueHeader  = 12
	segmentSize  = 4 << 20
	segmentName  = ".queue"
	cursorName   = "position"
	maxMessage   = 64 << 20
	minQueueSize = 2 * segmentSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openQueue opens the queue in dir, and makes it where there is none.
func openQueue(dir string, limit int64) (*queue, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q := &queue{dir: dir, limit: max(limit, minQueueSize), sizes: make(map[uint64]int64), items: make(map[uint64]int)}
	q.ready.L = &q.mu
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentName)
		seq, err := strconv.ParseUint(name, 10, 64)
		if !ok || err != nil {
			continue
		}
		q.seqs = append(q.seqs, seq)
	}
	slices.Sort(q.seqs)
	for _, seq := range q.seqs {
		if err := q.recover(seq); err != nil {
			return nil, fmt.Errorf("open queue: %w", err)
		}
	}
	if q.cursor, err = os.OpenFile(filepath.Join(dir, cursorName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if err := q.resume(); err != nil {
		return nil, errors.Join(fmt.Errorf("open queue: %w", err), q.close())
	}
	return q, nil
}

func (q *queue) path(seq uint64) string {
	return filepath.Join(q.dir, fmt.Sprintf("%016d%s", seq, segmentName))
}

// recover counts what a segment holds, and cuts off what a crash left torn.
func (q *queue) recover(seq uint64) error {
	f, err := os.OpenFile(q.path(seq), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var pos int64
	for {
		_, items, n, err := readMessage(f, pos)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return err
		}
		pos += n
		q.items[seq] += items
	}
	q.sizes[seq] = pos
	q.total += pos
	return f.Truncate(pos)
}

// resume goes to where the last process was, and begins a new segment to write to.
func (q *queue) resume() error {
	var b [16]byte
	if n, err := q.cursor.ReadAt(b[:], 0); n == len(b) && (err == nil || errors.Is(err, io.EOF)) {
		seq, pos := binary.LittleEndian.Uint64(b[:]), int64(binary.LittleEndian.Uint64(b[8:]))
		for len(q.seqs) > 0 && q.seqs[0] < seq {
			if err := q.dropHead(); err != nil {
				return err
			}
		}
		if len(q.seqs) > 0 && q.seqs[0] == seq && pos <= q.sizes[seq] {
			if err := q.openHead(); err != nil {
				return err
			}
			for q.pos < pos {
				_, items, n, err := readMessage(q.head, q.pos)
				if err != nil {
					break
				}
				q.pos += n
				q.items[seq] -= items
			}
		}
	}
	return q.grow()
}

// errTorn is returned for a message that was not written to its end, or not as read.
var errTorn = errors.New("torn message")

// readMessage reads the message at pos and returns its length with its header.
func readMessage(f *os.File, pos int64) (b []byte, items int, n int64, err error) {
	var h [queueHeader]byte
	if k, err := f.ReadAt(h[:], pos); k < len(h) {
		if k > 0 && errors.Is(err, io.EOF) {
			err = errTorn
		}
		return nil, 0, 0, err
	}
	size := binary.LittleEndian.Uint32(h[:])
	if size == 0 || size > maxMessage { // a crash may leave a file's end filled with zeros
		return nil, 0, 0, errTorn
	}
	b = make([]byte, size)
	if k, err := f.ReadAt(b, pos+queueHeader); k < len(b) {
		if errors.Is(err, io.EOF) {
			err = errTorn
		}
		return nil, 0, 0, err
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return nil, 0, 0, errTorn
	}
	return b, int(binary.LittleEndian.Uint32(h[8:])), queueHeader + int64(size), nil
}

// push appends a message of so many items. When the queue is full the oldest go.
func (q *queue) push(b []byte, items int) error {
	if len(b) == 0 || len(b) > maxMessage {
		return fmt.Errorf("queue message: %d bytes", len(b))
	}
	msg := make([]byte, queueHeader, queueHeader+len(b))
	binary.LittleEndian.PutUint32(msg, uint32(len(b)))
	binary.LittleEndian.PutUint32(msg[4:], crc32.Checksum(b, castagnoli))
	binary.LittleEndian.PutUint32(msg[8:], uint32(items))
	msg = append(msg, b...)

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return os.ErrClosed
	}
	if last := q.seqs[len(q.seqs)-1]; q.sizes[last] > 0 && q.sizes[last]+int64(len(msg)) > segmentSize {
		if err := q.grow(); err != nil {
			return fmt.Errorf("queue message: %w", err)
		}
	}
	for q.total+int64(len(msg)) > q.limit && len(q.seqs) > 1 {
		q.dropped += uint64(q.items[q.seqs[0]] - q.pending.items)
		if err := q.dropHead(); err != nil {
			return fmt.Errorf("drop the oldest: %w", err)
		}
	}
	last := q.seqs[len(q.seqs)-1]
	if n, err := q.tail.WriteAt(msg, q.sizes[last]); err != nil {
		return errors.Join(fmt.Errorf("queue message: %d of %d bytes: %w", n, len(msg), err), q.tail.Truncate(q.sizes[last]))
	}
	q.sizes[last] += int64(len(msg))
	q.total += int64(len(msg))
	q.items[last] += items
	q.ready.Signal()
	return nil
}

// peek waits for the oldest message and returns it; ok is false once the queue is
// closed. The message stays until ack.
func (q *queue) peek() (b []byte, items int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return nil, 0, false
		}
		seq := q.seqs[0]
		if q.pos < q.sizes[seq] {
			if q.head == nil && q.openHead() != nil {
				q.skip(seq)
				continue
			}
			b, items, n, err := readMessage(q.head, q.pos)
			if err != nil { // the disk lies: what is left of this segment is lost
				q.skip(seq)
				continue
			}
			q.pending = peeked{n, items}
			return b, items, true
		}
		if len(q.seqs) > 1 {
			_ = q.dropHead() // a file that can't be removed is found again at the next start
			continue
		}
		q.ready.Wait()
	}
}

// skip gives up what is left of a segment.
func (q *queue) skip(seq uint64) {
	q.dropped += uint64(q.items[seq])
	q.items[seq] = 0
	q.pos = q.sizes[seq]
}

// ack takes off the message that peek returned.
func (q *queue) ack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending.size == 0 || q.closed {
		return // its segment was dropped meanwhile, for want of room
	}
	q.pos += q.pending.size
	q.items[q.seqs[0]] -= q.pending.items
	q.pending = peeked{}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], q.seqs[0])
	binary.LittleEndian.PutUint64(b[8:], uint64(q.pos))
	_, _ = q.cursor.WriteAt(b[:], 0) // lost, it means a repeat, which receivers know by its span id
}

// displaced reports whether newer messages have taken the room of the one that peek
// returned, which then counts as dropped: who cannot send it should go on.
func (q *queue) displaced(items int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending.size > 0 || q.closed {
		return false
	}
	q.dropped += uint64(items)
	return true
}

func (q *queue) openHead() error {
	f, err := os.Open(q.path(q.seqs[0]))
	if err != nil {
		return err
	}
	q.head = f
	return nil
}

// dropHead removes the oldest segment.
func (q *queue) dropHead() error {
	seq := q.seqs[0]
	if q.head != nil {
		_ = q.head.Close()
		q.head = nil
	}
	q.total -= q.sizes[seq]
	delete(q.sizes, seq)
	delete(q.items, seq)
	q.seqs, q.pos, q.pending = q.seqs[1:], 0, peeked{}
	return os.Remove(q.path(seq))
}

// grow begins a new segment.
func (q *queue) grow() error {
	var seq uint64 = 1
	if n := len(q.seqs); n > 0 {
		seq = q.seqs[n-1] + 1
	}
	var b [8]byte
	if n, _ := q.cursor.ReadAt(b[:], 0); n == len(b) {
		seq = max(seq, binary.LittleEndian.Uint64(b[:])+1)
	}
	f, err := os.OpenFile(q.path(seq), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if q.tail != nil {
		err = errors.Join(q.tail.Sync(), q.tail.Close())
	}
	q.tail = f
	q.seqs = append(q.seqs, seq)
	q.sizes[seq] = 0
	return err
}

// depth returns the items and bytes not yet sent, and the items dropped so far.
func (q *queue) depth() (items int, bytes int64, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range q.items {
		items += n
	}
	return items, q.total - q.pos, q.dropped
}

// empty reports whether everything was sent.
func (q *queue) empty() bool {
	_, n, _ := q.depth()
	return n == 0
}

// close wakes peek and closes the files; what is queued stays.
func (q *queue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	q.ready.Broadcast()
	var err error
	for _, f := range []*os.File{q.head, q.cursor} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if q.tail != nil {
		err = errors.Join(err, q.tail.Sync(), q.tail.Close())
	}
	return err
}
