package otlp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func open(t *testing.T, dir string, limit int64) *queue {
	t.Helper()
	q, err := openQueue(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.close() })
	return q
}

func push(t *testing.T, q *queue, b []byte) {
	t.Helper()
	if err := q.push(b, 1); err != nil {
		t.Fatal(err)
	}
}

// take reads and acknowledges n messages, or all when n is negative.
func take(t *testing.T, q *queue, n int) (got []string) {
	t.Helper()
	for ; n != 0 && !q.empty(); n-- {
		b, _, ok := q.peek()
		if !ok {
			t.Fatal("closed")
		}
		if b == nil {
			break
		}
		got = append(got, string(b[:min(len(b), 8)]))
		q.ack()
	}
	return got
}

func message(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i)}, size)
	copy(b, fmt.Sprintf("%08d", i))
	return b
}

func names(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("%08d", i))
	}
	return all
}

func TestQueueKeepsOrderOverSegmentsAndRestarts(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<30)
	for i := range 30 {
		push(t, q, message(i, 1<<20))
	}
	if got := take(t, q, 7); !slices.Equal(got, names(0, 7)) {
		t.Fatalf("got %v", got)
	}
	// The process dies: nothing is closed.
	q2 := open(t, dir, 1<<30)
	push(t, q2, message(30, 100))
	if items, _, dropped := q2.depth(); items != 24 || dropped != 0 {
		t.Errorf("%d items, %d dropped", items, dropped)
	}
	if got := take(t, q2, -1); !slices.Equal(got, names(7, 31)) {
		t.Errorf("got %v", got)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*"+segmentName)); len(files) > 2 {
		t.Errorf("%d segments left of an empty queue", len(files))
	}
	if err := q2.close(); err != nil {
		t.Fatal(err)
	}
	q3 := open(t, dir, 1<<30)
	if !q3.empty() {
		t.Error("what was sent is sent again")
	}
}

func TestQueueDropsTheOldestWhenFull(t *testing.T) {
	q := open(t, t.TempDir(), 10<<20)
	for i := range 50 {
		push(t, q, message(i, 1<<20))
	}
	items, size, dropped := q.depth()
	if items+int(dropped) != 50 || size > 10<<20 || dropped == 0 {
		t.Errorf("%d items of %d bytes, %d dropped", items, size, dropped)
	}
	got := take(t, q, -1)
	if !slices.Equal(got, names(50-items, 50)) {
		t.Errorf("kept %v", got)
	}
}

func TestQueueDropsWhileOneIsBeingSent(t *testing.T) {
	for sent, want := range map[bool]int{true: 39, false: 40} {
		q := open(t, t.TempDir(), minQueueSize)
		push(t, q, message(0, 1<<20))
		_, items, _ := q.peek()
		if q.displaced(items) {
			t.Error("displaced by nothing")
		}
		for i := 1; i < 40; i++ {
			push(t, q, message(i, 1<<20))
		}
		if !sent && !q.displaced(items) {
			t.Error("tried again for ever")
		}
		q.ack() // of a message whose segment is gone: it was sent, and not dropped, or given up
		left, _, dropped := q.depth()
		if got := take(t, q, -1); left+int(dropped) != want || len(got) != left || got[len(got)-1] != "00000039" {
			t.Errorf("sent %v: %d left, %d dropped, got %v", sent, left, dropped, got)
		}
	}
}

func TestQueueSurvivesATornTail(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<30)
	for i := range 3 {
		push(t, q, message(i, 1000))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"+segmentName))
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut := info.Size() - 1; cut > 2*(1000+queueHeader); cut -= 97 {
		if err := os.Truncate(files[0], cut); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir, 1<<30)
		if got := take(t, q, 0); len(got) != 0 {
			t.Fatal(got)
		}
		if items, _, _ := q.depth(); items != 2 {
			t.Fatalf("cut at %d: %d items", cut, items)
		}
	}
	q = open(t, dir, 1<<30)
	push(t, q, message(9, 10))
	if got := take(t, q, -1); !slices.Equal(got, []string{"00000000", "00000001", "00000009"}) {
		t.Errorf("got %v", got)
	}
}

func TestQueuePeekWaitsAndCloseWakes(t *testing.T) {
	q := open(t, t.TempDir(), 1<<30)
	got := make(chan string, 2)
	go func() {
		for {
			b, _, ok := q.peek()
			if !ok {
				close(got)
				return
			}
			got <- string(b)
			q.ack()
		}
	}()
	time.Sleep(10 * time.Millisecond)
	push(t, q, []byte("late"))
	if s := <-got; s != "late" {
		t.Errorf("got %q", s)
	}
	if err := q.close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-got; ok {
		t.Error("peek went on after close")
	}
	if err := q.push([]byte("x"), 1); err == nil {
		t.Error("push after close")
	}
}

// Whatever stands in the folder, the queue opens, gives what is whole, and takes more.
func FuzzQueueFile(f *testing.F) {
	dir := f.TempDir()
	q, err := openQueue(dir, 1<<30)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if err := q.push(message(i, 20+i), 1); err != nil {
			f.Fatal(err)
		}
	}
	q.peek()
	q.ack()
	if err := q.close(); err != nil {
		f.Fatal(err)
	}
	seg, err := os.ReadFile(q.path(1))
	if err != nil {
		f.Fatal(err)
	}
	pos, err := os.ReadFile(filepath.Join(dir, cursorName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seg, pos)
	f.Add(seg[:len(seg)-3], pos[:9])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, seg, pos []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{fmt.Sprintf("%016d%s", 1, segmentName): seg, cursorName: pos} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		q, err := openQueue(dir, 1<<30)
		if err != nil {
			return
		}
		defer q.close()
		if err := q.push([]byte("new"), 1); err != nil {
			t.Fatal(err)
		}
		last := ""
		for !q.empty() {
			b, _, _ := q.peek()
			last = string(b)
			q.ack()
		}
		if last != "new" {
			t.Errorf("last is %q", last)
		}
	})
}
