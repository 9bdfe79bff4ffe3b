package conformance

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// Decode sends one case through the decoder as HTTP/1.1 bytes and returns the call
// that comes out, nil when there is none.
func Decode(vendors []exchange.Vendor, c Case) (*llm.Call, error) {
	request, err := c.Entry.RequestWire()
	if err != nil {
		return nil, err
	}
	response, err := c.Entry.ResponseWire()
	if err != nil {
		return nil, err
	}
	var call *llm.Call
	calls := 0
	d := decoder.New(decoder.Config{Vendors: vendors, Call: func(c *llm.Call) { call, calls = c, calls+1 }})
	conn := flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}
	var pos [2]uint64
	push := func(dir flow.Dir, pieces [][]byte) {
		for _, p := range pieces {
			d.Push(&flow.Data{Kind: flow.KindData, Conn: conn, Source: flow.SourceReplay, Dir: dir, Pos: pos[dir], Payload: p})
			pos[dir] += uint64(len(p))
		}
	}
	push(flow.Write, request)
	push(flow.Read, response)
	d.Push(&flow.Data{Kind: flow.KindClose, Conn: conn, Source: flow.SourceReplay})
	d.Close()
	if calls > 1 {
		return nil, fmt.Errorf("%d calls of one exchange", calls)
	}
	return call, nil
}

// Report is the result of a run.
type Report struct {
	rows   map[[2]string]*row
	Misses []Miss

	Sure, Exact      int // usages: whose expectation is sure; those of them that came out so
	WrongUnflagged   int // usages that are wrong, sure to be, and labelled exact without a word
	Cases, AllFields int // cases; those with every field as expected
}

type row struct {
	n, sure int
	ok      [NumFields]int
}

// Run decodes every case of the corpora in dir.
func Run(vendors []exchange.Vendor, dir string) (*Report, error) {
	r := &Report{rows: make(map[[2]string]*row)}
	err := Load(dir, func(c Case) error {
		call, err := Decode(vendors, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Want.ID, err)
		}
		r.add(c.Want, Compare(call, c.Want))
		return nil
	})
	return r, err
}

func (r *Report) add(want *Expected, misses []Miss) {
	key := [2]string{want.Family, want.Framing}
	t := r.rows[key]
	if t == nil {
		t = new(row)
		r.rows[key] = t
	}
	r.Cases++
	t.n++
	var missed [NumFields]bool
	for _, m := range misses {
		missed[m.Field] = true
		if m.Field == Usage && m.Sure && !m.Flagged {
			r.WrongUnflagged++
		}
	}
	if len(misses) == 0 {
		r.AllFields++
	}
	for f, bad := range missed {
		if !bad && (!missed[Recognised] || Field(f) == Recognised) {
			t.ok[f]++
		}
	}
	if want.UsagePresent && want.UsageSure {
		t.sure++
		r.Sure++
		if !missed[Usage] && !missed[Recognised] {
			r.Exact++
		}
	}
	r.Misses = append(r.Misses, misses...)
}

// Write prints the table, the misses and the closing line. Where all of a family's
// calls came out as expected a cell is a dot.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "family\tframing\tcalls")
	for f := range NumFields {
		fmt.Fprintf(t, "\t%s", f)
	}
	fmt.Fprintln(t)
	keys := make([][2]string, 0, len(r.rows))
	for k := range r.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int {
		return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1])
	})
	for _, k := range keys {
		row := r.rows[k]
		fmt.Fprintf(t, "%s\t%s\t%d", k[0], k[1], row.n)
		for _, ok := range row.ok {
			if ok == row.n {
				fmt.Fprint(t, "\t.")
			} else {
				fmt.Fprintf(t, "\t%d", ok)
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d of %d calls as expected in every field; %d fields are not:\n", r.AllFields, r.Cases, len(r.Misses))
	for _, m := range r.Misses {
		sure := ""
		if !m.Sure {
			sure = " (expectation not sure)"
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s%s\n\tgot  %s\n\twant %s\n", m.ID, m.Family, m.Framing, m.Field, sure, m.Got, m.Want)
	}
	share := 0.0
	if r.Sure > 0 {
		share = 100 * float64(r.Exact) / float64(r.Sure)
	}
	_, err := fmt.Fprintf(w, "conformance: usage exact %.1f%% (%d/%d sure), wrong and unflagged %d\n",
		share, r.Exact, r.Sure, r.WrongUnflagged)
	return err
}
