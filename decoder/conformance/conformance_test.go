package conformance

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

var all = flag.Bool("all", false, "cut every entry of the corpora at every byte; takes hours")

func corpora(t *testing.T) string {
	t.Helper()
	dir, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The misses that there are stand in docs/conformance.md, one by one.
func TestConformance(t *testing.T) {
	r, err := Run(vendors.All(content.Config{}), corpora(t))
	if err != nil {
		t.Fatal(err)
	}
	if r.WrongUnflagged > 0 || float64(r.Exact) < 0.995*float64(r.Sure) {
		var b strings.Builder
		r.Write(&b)
		t.Fatal(b.String())
	}
}

// TestCuts cuts responses at bytes of their bodies, by a connection that breaks and
// by a body that ends early as if in order: what is exact then is right.
func TestCuts(t *testing.T) {
	v := vendors.All(content.Config{NoEstimate: true})
	rnd := rand.New(rand.NewPCG(1, 2))
	entries, cuts, exact := 0, 0, 0
	err := Load(corpora(t), func(c Case) error {
		if !*all && rnd.IntN(24) != 0 || c.Entry.Response.Status != 200 {
			return nil
		}
		full, err := Decode(v, c)
		if err != nil || full == nil {
			return err
		}
		entries++
		body := c.Entry.Response.Body
		var at []int
		if *all {
			for i := range body {
				at = append(at, i)
			}
		} else {
			for range 12 {
				at = append(at, rnd.IntN(len(body)))
			}
			for i := max(0, len(body)-1200); i < len(body); i += 1 + rnd.IntN(40) {
				at = append(at, i)
			}
		}
		for _, n := range at {
			short := *c.Entry
			short.Response.Body, short.Response.Chunks = body[:n], nil
			cases := []*llm.Call{nil, breaks(t, v, c, n)}
			if cases[0], err = Decode(v, Case{&short, c.Want}); err != nil {
				return err
			}
			for how, got := range cases {
				cuts++
				if got == nil || got.Completeness != llm.Exact {
					continue
				}
				exact++
				if got.Usage != full.Usage && full.Completeness == llm.Exact {
					t.Errorf("%s cut at %d of %d (%s): exact %v, whole it is %v", c.Want.ID, n, len(body),
						[]string{"ended", "broken"}[how], got.Usage, full.Usage)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries, %d cuts, %d still exact", entries, cuts, exact)
}

// breaks decodes a case whose connection closes after n bytes of the response's body.
func breaks(t *testing.T, v []exchange.Vendor, c Case, n int) (call *llm.Call) {
	request, err := c.Entry.RequestWire()
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Entry.ResponseWire()
	if err != nil {
		t.Fatal(err)
	}
	d := decoder.New(decoder.Config{Vendors: v, Call: func(c *llm.Call) { call = c }})
	defer d.Close()
	conn := flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}
	pos := uint64(0)
	for _, p := range request {
		d.Push(&flow.Data{Kind: flow.KindData, Conn: conn, Dir: flow.Write, Pos: pos, Payload: p})
		pos += uint64(len(p))
	}
	left := len(response[0]) + n
	pos = 0
	for _, p := range response {
		p = p[:min(len(p), left)]
		d.Push(&flow.Data{Kind: flow.KindData, Conn: conn, Dir: flow.Read, Pos: pos, Payload: p})
		pos += uint64(len(p))
		if left -= len(p); left == 0 {
			break
		}
	}
	d.Push(&flow.Data{Kind: flow.KindClose, Conn: conn})
	return call
}
