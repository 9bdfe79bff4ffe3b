package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// Ending is how an answer ends before its end.
type Ending uint8

const (
	Broken Ending = iota // the connection closes
	Ended                // its framing says that this was all
	numEndings
)

func (e Ending) String() string { return [...]string{"broken", "ended"}[e] }

// Wrong is a cut after which the record calls a number exact that the whole answer
// does not state, or one that was taken for harmless and isn't.
type Wrong struct {
	ID         string
	How        Ending
	At, Of     int // bytes of the body; At is -1 in the head
	Got, Whole *llm.Call
}

func (w Wrong) String() string {
	return fmt.Sprintf("%s %v at %d of %d: %s; the whole %s", w.ID, w.How, w.At, w.Of, numbers(w.Got), numbers(w.Whole))
}

// numbers are those of a call, as text.
func numbers(c *llm.Call) string {
	b := fmt.Appendf(nil, "is %v", c.Completeness)
	for class := range llm.NumClasses {
		if c.Usage.Has(class) {
			b = fmt.Appendf(b, " %v %v", class, c.Usage.Get(class))
		}
	}
	if c.StatedCost != "" {
		b = fmt.Appendf(b, ", costs %s", c.StatedCost)
	}
	return string(b)
}

// CutReport is what cutting came to.
type CutReport struct {
	Answers int
	Bytes   int // of their bodies: at each was cut, in both ways
	Decoded int // cuts that went through the whole decoder
	Exact   int // of these: their usage is exact all the same
	Wrong   []Wrong
}

func (r *CutReport) add(s CutReport) {
	r.Answers += s.Answers
	r.Bytes += s.Bytes
	r.Decoded += s.Decoded
	r.Exact += s.Exact
	r.Wrong = append(r.Wrong, s.Wrong...)
}

// Cuts ends the answers of the corpora in dir too early, at every byte, in each way that
// there is. Decoding every beginning of every answer would be some 800 GB, so cuts that
// the decoder cannot tell apart are decoded once:
//
//   - between two events the vendor has been told the same until the next begins: the
//     first and the last byte of each such stretch are decoded;
//   - within an event, or a body that is one value, a broken connection is an error of
//     the reader, and what ends in order is a torn JSON, if the vendor says so. An answer
//     with an error is never exact (decoder's settle). So the vendor is handed what has
//     come, at every byte; where it reports no error the cut is decoded, and of the
//     others one in Sample.
//
// progress may be nil.
func Cuts(dir string, progress func(CutReport)) (*CutReport, error) {
	var (
		mu    sync.Mutex
		sum   CutReport
		fault error
		wg    sync.WaitGroup
	)
	cases := make(chan Case)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			k := newKnife()
			for c := range cases {
				r, err := k.cut(c)
				mu.Lock()
				if err != nil && fault == nil {
					fault = fmt.Errorf("%s: %w", c.Want.ID, err)
				}
				sum.add(r)
				if progress != nil {
					progress(sum)
				}
				mu.Unlock()
			}
		})
	}
	err := Load(dir, func(c Case) error {
		cases <- c
		return nil
	})
	close(cases)
	wg.Wait()
	if err == nil {
		err = fault
	}
	return &sum, err
}

// Sample is one in how many cuts of those that cannot matter is decoded nevertheless.
const Sample = 1024

// knife decodes one exchange again and again, with less of its answer each time. The
// vendors keep scanners, so each knife has its own.
type knife struct {
	vendors []exchange.Vendor
	d       *decoder.Decoder
	conn    flow.Conn
	call    *llm.Call
	rnd     *rand.Rand

	request    [][]byte
	head, body []byte // the head without the field that says how the body is framed
	chunked    bool
	whole      *llm.Call
	report     CutReport
}

func newKnife() *knife {
	k := &knife{
		vendors: vendors.All(content.Config{NoEstimate: true}),
		conn:    flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}},
		rnd:     rand.New(rand.NewPCG(1, 2)),
	}
	k.d = decoder.New(decoder.Config{Vendors: k.vendors, Call: func(c *llm.Call) { k.call = c }})
	return k
}

// take begins with a case. It reports false when it has no answer that could be cut.
func (k *knife) take(c Case) (ok bool, err error) {
	if k.request, err = c.Entry.RequestWire(); err != nil {
		return false, err
	}
	response, err := c.Entry.ResponseWire()
	if err != nil {
		return false, err
	}
	k.body = c.Entry.Response.Body
	if k.head, k.chunked = bytes.CutSuffix(response[0], []byte("Transfer-Encoding: chunked\r\n\r\n")); !k.chunked {
		k.head, ok = bytes.CutSuffix(response[0], fmt.Appendf(nil, "Content-Length: %d\r\n\r\n", len(k.body)))
		if !ok {
			return false, nil // no body
		}
	}
	k.whole = k.decode(len(k.body), Ended)
	return k.whole != nil, nil
}

func (k *knife) cut(c Case) (CutReport, error) {
	k.report = CutReport{}
	if ok, err := k.take(c); !ok {
		return k.report, err
	}
	k.report.Answers, k.report.Bytes = 1, len(k.body)
	check := func(at int, how Ending, got *llm.Call, may bool) {
		k.report.Decoded++
		if got == nil || got.Completeness != llm.Exact {
			return
		}
		k.report.Exact++
		if !may || k.whole.Completeness != llm.Exact || got.Usage != k.whole.Usage || got.StatedCost != "" && got.StatedCost != k.whole.StatedCost {
			k.report.Wrong = append(k.report.Wrong, Wrong{c.Want.ID, how, at, len(k.body), got, k.whole})
		}
	}
	check(-1, Broken, k.send(), false)
	check(-1, Broken, k.send(k.head), false)
	for _, p := range newScout(k).places() {
		check(p.at, Ended, k.decode(p.at, Ended), p.ends)
		check(p.at, Broken, k.decode(p.at, Broken), p.breaks)
	}
	return k.report, nil
}

// decode returns the call of an answer of which n bytes of the body have crossed.
func (k *knife) decode(n int, how Ending) *llm.Call {
	if how == Broken {
		return k.send(k.framed(len(k.body)), k.body[:n])
	}
	end := ""
	if k.chunked {
		if end = "0\r\n\r\n"; n > 0 {
			end = "\r\n" + end
		}
	}
	return k.send(k.framed(n), k.body[:n], []byte(end))
}

// framed is the head of an answer with a body of n bytes, and the beginning of its one chunk.
func (k *knife) framed(n int) []byte {
	head := bytes.Clone(k.head)
	if !k.chunked {
		return fmt.Appendf(head, "Content-Length: %d\r\n\r\n", n)
	}
	head = append(head, "Transfer-Encoding: chunked\r\n\r\n"...)
	if n > 0 {
		head = fmt.Appendf(head, "%x\r\n", n)
	}
	return head
}

// send makes the exchange on a connection of its own.
func (k *knife) send(response ...[]byte) *llm.Call {
	k.call = nil
	w := wire{d: k.d, conn: k.next()}
	for _, p := range k.request {
		w.push(flow.Write, p)
	}
	for _, p := range response {
		w.push(flow.Read, p)
	}
	w.close()
	return k.call
}

func (k *knife) next() flow.Conn {
	k.conn.Key++
	return k.conn
}

// wire is a connection.
type wire struct {
	d    *decoder.Decoder
	conn flow.Conn
	pos  [2]uint64
}

func (w *wire) push(dir flow.Dir, b []byte) {
	if len(b) > 0 {
		w.d.Push(&flow.Data{Kind: flow.KindData, Conn: w.conn, Source: flow.SourceReplay, Dir: dir, Pos: w.pos[dir], Payload: b})
		w.pos[dir] += uint64(len(b))
	}
}

func (w *wire) close() {
	w.d.Push(&flow.Data{Kind: flow.KindClose, Conn: w.conn, Source: flow.SourceReplay})
}
