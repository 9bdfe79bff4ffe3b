package eventstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

// body is bytes that come in pieces of a size, ended by err.
type body struct {
	b    []byte
	size int
	err  error
}

func (b *body) Window() ([]byte, error) {
	if len(b.b) == 0 {
		return nil, b.err
	}
	return b.b[:min(len(b.b), b.size)], nil
}
func (b *body) Resume() bool    { return false }
func (b *body) Discard(n int)   { b.b = b.b[n:] }
func (b *body) Time() flow.Time { return 0 }
func (b *body) Read(p []byte) (int, error) {
	w, err := b.Window()
	n := copy(p, w)
	b.Discard(n)
	return n, err
}

// stream is made by AWS's own encoder: every type of header, an event, an exception,
// an error, an empty payload.
func stream(t testing.TB) []byte {
	var out bytes.Buffer
	e := eventstream.NewEncoder()
	for _, m := range []struct {
		kind, name, payload string
	}{
		{"event", "chunk", `{"bytes":"e30="}`}, {"event", "messageStop", ""},
		{"exception", "throttlingException", `{"message":"slow down"}`}, {"error", "InternalError", ""},
	} {
		var h eventstream.Headers
		h.Set("b", eventstream.BoolValue(true))
		h.Set("i8", eventstream.Int8Value(1))
		h.Set("i16", eventstream.Int16Value(1))
		h.Set("i32", eventstream.Int32Value(1))
		h.Set("i64", eventstream.Int64Value(1))
		h.Set("bytes", eventstream.BytesValue("xyz"))
		h.Set("uuid", eventstream.UUIDValue{1, 2})
		h.Set(":message-type", eventstream.StringValue(m.kind))
		switch m.kind {
		case "event":
			h.Set(":event-type", eventstream.StringValue(m.name))
		case "exception":
			h.Set(":exception-type", eventstream.StringValue(m.name))
		case "error":
			h.Set(":error-code", eventstream.StringValue(m.name))
		}
		if err := e.Encode(&out, eventstream.Message{Headers: h, Payload: []byte(m.payload)}); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func messages(b exchange.Body) (out []string, err error) {
	r := NewReader(b)
	for {
		m, err := r.Next()
		if err != nil {
			return out, err
		}
		p, err := io.ReadAll(r)
		if err != nil {
			return out, err
		}
		out = append(out, fmt.Sprintf("%s %s%s %s", m.Type, m.Event, m.Exception, p))
	}
}

func TestMessages(t *testing.T) {
	want := []string{"event chunk {\"bytes\":\"e30=\"}", "event messageStop ", "exception throttlingException {\"message\":\"slow down\"}", "error InternalError "}
	for _, size := range []int{1, 3, 50, 1 << 20} {
		got, err := messages(&body{stream(t), size, io.EOF})
		if err != io.EOF || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("size %d: %q, %v", size, got, err)
		}
	}
}

func TestPayloadUnread(t *testing.T) {
	r := NewReader(&body{stream(t), 7, io.EOF})
	for range 4 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// TestEveryByteIsChecked turns each bit of a message: some check must fail.
func TestEveryByteIsChecked(t *testing.T) {
	whole := stream(t)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		if _, err := messages(&body{b, 1 << 20, io.EOF}); !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d: %v", i, err)
		}
		if _, err := messages(&body{whole[:i], 1 << 20, exchange.ErrCut}); !errors.Is(err, exchange.ErrCut) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// lying is a message whose lengths can't be, with the checksum that they want.
func lying(total, headers uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, total)
	b = binary.BigEndian.AppendUint32(b, headers)
	return append(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), make([]byte, 64)...)
}

func TestLyingLengths(t *testing.T) {
	for _, b := range [][]byte{lying(0, 0), lying(15, 0), lying(1<<31, 8), lying(100, 1<<30), lying(40, 30), lying(1<<32-1, 1<<32-1)} {
		if _, err := messages(&body{b, 1 << 20, io.EOF}); !errors.Is(err, ErrFormat) {
			t.Errorf("%x: %v", b[:12], err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(stream(f), 3)
	f.Add(lying(100, 50), 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = 1 + int(uint(size)%64)
		whole, err1 := messages(&body{b, 1 << 20, io.EOF})
		split, err2 := messages(&body{b, size, io.EOF})
		if fmt.Sprint(whole, err1) != fmt.Sprint(split, err2) {
			t.Errorf("whole %q %v, split %q %v", whole, err1, split, err2)
		}
	})
}
