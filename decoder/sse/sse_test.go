package sse

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

// pieces is a body that comes in pieces, each a tick later.
type pieces struct {
	p    []string
	w    []byte
	time flow.Time
	err  error
}

func (b *pieces) Window() ([]byte, error) {
	for len(b.w) == 0 {
		if len(b.p) == 0 {
			return nil, b.err
		}
		b.w, b.p, b.time = []byte(b.p[0]), b.p[1:], b.time+1
	}
	return b.w, nil
}
func (b *pieces) Resume() bool    { return false }
func (b *pieces) Discard(n int)   { b.w = b.w[n:] }
func (b *pieces) Time() flow.Time { return b.time }
func (b *pieces) Read(p []byte) (int, error) {
	w, err := b.Window()
	n := copy(p, w)
	b.Discard(n)
	return n, err
}

func cut(s string, size func() int) (out []string) {
	for len(s) > 0 {
		n := min(size(), len(s))
		out, s = append(out, s[:n]), s[n:]
	}
	return out
}

// events reads all events as "name|data", and the error that ended them.
func events(b exchange.Body) (out []string, err error) {
	r := NewReader(b)
	for {
		name, err := r.Next()
		if err != nil {
			return out, err
		}
		n := string(name)
		data, err := io.ReadAll(r)
		if err != nil {
			return append(out, n+"|"+string(data)+"!"), err
		}
		out = append(out, n+"|"+string(data))
	}
}

var dialects = []struct {
	name, in string
	want     []string
}{
	{"plain", "data: a\n\ndata: b\n\n", []string{"|a", "|b"}},
	{"crlf", "event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", []string{"x|a", "|b"}},
	{"cr", "event: x\rdata: a\r\rdata: b\r\r", []string{"x|a", "|b"}},
	{"mixed ends", "data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", []string{"|a", "|b", "|c"}},
	{"no space", "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"a\":1}\n\n", []string{`result|{"a":1}`}},
	{"two spaces", "data:  a\n\n", []string{"| a"}},
	{"comments", ": OPENROUTER PROCESSING\n\n: again\n\ndata: a\n: between\ndata: b\n\n", []string{"|a\nb"}},
	{"several lines", "data: a\ndata:\ndata: b\n\n", []string{"|a\n\nb"}},
	{"bare", "data\n\ndata\ndata\n\n", []string{"|", "|\n"}},
	{"mark", "\xef\xbb\xbfdata: a\n\n", []string{"|a"}},
	{"no last empty line", "data: a\n\ndata: b", []string{"|a", "|b"}},
	{"no last empty line, line ended", "data: a\n\ndata: b\n", []string{"|a", "|b"}},
	{"name without data", "event: x\n\ndata: a\n\n", []string{"|a"}},
	{"other fields", "retry: 3\nid: 7\nunknown: x\ndataset: no\nwhat\ndata: a\nid: 8\n\n", []string{"|a"}},
	{"name after data", "data: a\nevent: x\n\ndata: b\n\n", []string{"|a", "|b"}},
	{"long name", "event: " + strings.Repeat("n", 300) + "\ndata: a\n\n", []string{strings.Repeat("n", maxName) + "|a"}},
	{"colons", "data: a: b\n\ndata::\n\n", []string{"|a: b", "|:"}},
	{"empty", "", nil},
	{"empty lines", "\n\r\n\r\n\n", nil},
}

func TestDialects(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, d := range dialects {
		for i, size := range []func() int{
			func() int { return 1 << 20 }, func() int { return 1 }, func() int { return 2 },
			func() int { return 1 + rnd.IntN(5) }, func() int { return 1 + rnd.IntN(9) },
		} {
			got, err := events(&pieces{p: cut(d.in, size), err: io.EOF})
			if err != io.EOF || !reflect.DeepEqual(got, d.want) {
				t.Errorf("%s, split %d: %q, %v; want %q", d.name, i, got, err, d.want)
			}
		}
	}
}

// TestEventEndsWithItsEmptyLine: nothing after it is waited for, a CR's LF included.
func TestEventEndsWithItsEmptyLine(t *testing.T) {
	b := &pieces{p: []string{"data: a\r\n\r", "\ndata: b", "\r\n", "\r\n", "data: c\r\n\r\n"}, err: io.EOF}
	r := NewReader(b)
	for i, want := range []string{"1 a", "4 b", "5 c"} {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if got := fmt.Sprintf("%d %s", b.Time(), data); got != want || err != nil {
			t.Errorf("event %d: %q, %v; want %q", i, got, err, want)
		}
	}
}

func TestUnreadDataIsSkipped(t *testing.T) {
	r := NewReader(&pieces{p: cut("data: abcdef\ndata: ghi\n\nevent: n\ndata: x\n\n", func() int { return 3 }), err: io.EOF})
	r.Next()
	io.ReadFull(r, make([]byte, 2))
	if name, err := r.Next(); string(name) != "n" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}

func TestCutAnywhere(t *testing.T) {
	const in = "event: a\r\ndata: {\"x\":1}\r\n\r\ndata: y\r\n\r\n"
	for n := range in {
		got, err := events(&pieces{p: []string{in[:n]}, err: exchange.ErrCut})
		if n == 0 {
			got, err = events(&pieces{err: exchange.ErrCut})
		}
		if !errors.Is(err, exchange.ErrCut) {
			t.Errorf("cut at %d: %q, %v", n, got, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, d := range dialects {
		f.Add(d.in, uint64(1))
	}
	f.Fuzz(func(t *testing.T, in string, seed uint64) {
		var p []string
		if in != "" {
			p = []string{in}
		}
		whole, err := events(&pieces{p: p, err: io.EOF})
		if err != io.EOF {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(seed, 0))
		split, _ := events(&pieces{p: cut(in, func() int { return 1 + rnd.IntN(8) }), err: io.EOF})
		if !reflect.DeepEqual(whole, split) {
			t.Errorf("whole %q, split %q", whole, split)
		}
	})
}

// loop is a body of n times the same bytes.
type loop struct {
	b, w []byte
	n    int
}

func (l *loop) Window() ([]byte, error) {
	if len(l.w) == 0 {
		if l.n--; l.n < 0 {
			return nil, io.EOF
		}
		l.w = l.b
	}
	return l.w, nil
}
func (l *loop) Resume() bool               { return false }
func (l *loop) Discard(n int)              { l.w = l.w[n:] }
func (l *loop) Time() flow.Time            { return 0 }
func (l *loop) Read(p []byte) (int, error) { panic("not used") }

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{200, 4000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			in := []byte(strings.Repeat("data: "+strings.Repeat("x", size)+"\n\n", 16))
			b.SetBytes(int64(len(in)))
			buf := make([]byte, 4096)
			r := NewReader(&loop{b: in, n: b.N})
			for {
				if _, err := r.Next(); err != nil {
					return
				}
				for {
					if _, err := r.Read(buf); err != nil {
						break
					}
				}
			}
		})
	}
}
