// Package ledgercheck holds the agent's records to the simulator's ledger. It reads
// the records from their published form (JSON Lines) and shares no code with what
// wrote them.
package ledgercheck

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/llm"
)

// Record is what is read of one line.
type Record struct {
	Time          time.Time          `json:"time"`
	Role          string             `json:"tollwire.role"`
	Provider      string             `json:"gen_ai.provider.name"`
	Operation     string             `json:"gen_ai.operation.name"`
	RequestModel  string             `json:"gen_ai.request.model"`
	ResponseModel string             `json:"gen_ai.response.model"`
	ResponseID    string             `json:"gen_ai.response.id"`
	Finish        []string           `json:"gen_ai.response.finish_reasons"`
	Stream        bool               `json:"gen_ai.request.stream"`
	Status        int                `json:"http.response.status_code"`
	Error         string             `json:"error.type"`
	Usage         map[string]float64 `json:"tollwire.usage"`
	Completeness  string             `json:"tollwire.usage.completeness"`
	Disagreement  string             `json:"tollwire.usage.disagreement"`
	Cost          string             `json:"tollwire.cost.usd"`
	Unpriced      string             `json:"tollwire.unpriced"`
	FirstContent  *float64           `json:"tollwire.time_to_first_content"`
	Duration      *float64           `json:"gen_ai.client.operation.duration"`
	Chunks        int                `json:"tollwire.chunks"`
	GapP50        *float64           `json:"tollwire.gap_p50"`
	GapMax        *float64           `json:"tollwire.gap_max"`
	PID           int                `json:"process.pid"`
	Executable    string             `json:"process.executable.name"`
	ContainerID   string             `json:"container.id"`
	API           string             `json:"tollwire.api"` // a priced API that is no model
	Graph         string             `json:"tollwire.graph"`
	Node          string             `json:"tollwire.node"`
	Relay         string             `json:"tollwire.relay"`
	Source        string             `json:"tollwire.capture.source"`
	Partial       string             `json:"tollwire.capture.partial"`
	LostBytes     int64              `json:"tollwire.capture.lost_bytes"`
}

// Options say how to check.
type Options struct {
	// Role is the end whose records are checked; "" means client.
	Role string
	// Price returns what a call must have cost, a decimal, and false where that is
	// not to be compared. nil: costs are not compared.
	Price func(*sim.Entry) (usd string, ok bool)
}

// Report is the outcome.
type Report struct {
	Calls      int // entries of the ledger
	Matched    int // of them, those with exactly one record that says the same
	Pairs      []Pair
	Mismatches []string // in words, one for each thing that differs
}

// OK reports whether every call matches and no record is left over.
func (r *Report) OK() bool { return len(r.Mismatches) == 0 && r.Matched == r.Calls }

// Pair is a call of the ledger and its record, nil when there is none.
type Pair struct {
	Entry  *sim.Entry
	Record *Record
	Diffs  []string
}

// Read reads records from JSON Lines.
func Read(r io.Reader) ([]*Record, error) {
	var out []*Record
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for n := 1; sc.Scan(); n++ {
		if len(sc.Bytes()) == 0 {
			continue
		}
		rec := new(Record)
		if err := json.Unmarshal(sc.Bytes(), rec); err != nil {
			return nil, fmt.Errorf("record on line %d: %w", n, err)
		}
		out = append(out, rec)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return out, nil
}

// Check pairs each entry with its record, by response id, else by status, models
// and time, and compares them.
func Check(entries []*sim.Entry, records []*Record, o Options) *Report {
	if o.Role == "" {
		o.Role = "client"
	}
	var left []*Record
	byID := make(map[string][]*Record)
	for _, r := range records {
		if r.Role != o.Role {
			continue
		}
		if r.ResponseID != "" {
			byID[r.ResponseID] = append(byID[r.ResponseID], r)
		} else {
			left = append(left, r)
		}
	}
	rep := &Report{Calls: len(entries)}
	for _, e := range entries {
		p := Pair{Entry: e}
		if rs := byID[e.ID]; e.ID != "" && len(rs) > 0 {
			p.Record = rs[0]
			if len(rs) > 1 {
				p.Diffs = append(p.Diffs, fmt.Sprintf("seen %d times", len(rs)))
			}
			delete(byID, e.ID)
		}
		rep.Pairs = append(rep.Pairs, p)
	}
	for i := range rep.Pairs {
		p := &rep.Pairs[i]
		if p.Record == nil {
			p.Record, left = nearest(p.Entry, left)
		}
		if p.Record == nil {
			p.Diffs = append(p.Diffs, "no record")
		} else {
			p.Diffs = append(p.Diffs, diff(p.Entry, p.Record, o)...)
		}
		if len(p.Diffs) == 0 {
			rep.Matched++
		}
		for _, d := range p.Diffs {
			rep.Mismatches = append(rep.Mismatches, name(p.Entry)+": "+d)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		rep.Mismatches = append(rep.Mismatches, fmt.Sprintf("record of %s: the ledger has no such call", id))
	}
	for _, r := range left {
		rep.Mismatches = append(rep.Mismatches, fmt.Sprintf("record at %s, status %d, model %q, without an id: the ledger has no such call",
			r.Time.Format(time.RFC3339Nano), r.Status, r.RequestModel))
	}
	return rep
}

func name(e *sim.Entry) string {
	if e.ID != "" {
		return e.ID
	}
	return fmt.Sprintf("%s (%s %d)", e.RequestID, e.Path, e.Status)
}

// nearest takes the record of e out of those that state no id.
func nearest(e *sim.Entry, left []*Record) (*Record, []*Record) {
	best, off := -1, 2*time.Second
	for i, r := range left {
		if r.Status != e.Status || r.RequestModel != e.Asked || r.Stream != e.Stream {
			continue
		}
		if d := r.Time.Sub(e.Started).Abs(); d < off {
			best, off = i, d
		}
	}
	if best < 0 {
		return nil, left
	}
	return left[best], slices.Delete(slices.Clone(left), best, best+1)
}

func diff(e *sim.Entry, r *Record, o Options) []string {
	var out []string
	differs := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			out = append(out, fmt.Sprintf("%s is %q, the ledger says %q", what, fmt.Sprint(got), fmt.Sprint(want)))
		}
	}
	differs("provider", r.Provider, e.Provider)
	differs("operation", r.Operation, e.Operation)
	differs("request model", r.RequestModel, e.Asked)
	differs("stream", r.Stream, e.Stream)
	differs("status", r.Status, e.Status)
	if e.Outcome == "completed" {
		differs("response model", r.ResponseModel, e.Served)
		differs("finish reasons", r.Finish, e.Finish)
		differs("partial", r.Partial, "")
		differs("disagreement", r.Disagreement, "")
	}
	if want := errorTypes(e); !slices.Contains(want, r.Error) {
		out = append(out, fmt.Sprintf("error.type is %q, want %s", r.Error, strings.Join(want, " or ")))
	}
	out = append(out, usageDiff(e, r)...)
	if o.Price != nil {
		if usd, ok := o.Price(e); ok {
			differs("cost", r.Cost, usd)
		}
	}
	return out
}

// errorTypes are the values of error.type that say the truth about e.
func errorTypes(e *sim.Entry) []string {
	switch {
	case e.Outcome == "completed":
		return []string{""}
	case e.Outcome != "error":
		return []string{"cut"}
	case e.Error == "" && e.ErrorCode == "":
		return []string{fmt.Sprint(e.Status)}
	case e.ErrorCode == "":
		return []string{e.Error}
	}
	return []string{e.Error, e.ErrorCode}
}

func usageDiff(e *sim.Entry, r *Record) []string {
	var out []string
	switch {
	case e.Stated == llm.Exact.String() && r.Completeness != e.Stated,
		e.Stated == llm.Estimated.String() && r.Completeness != e.Stated,
		e.Stated == llm.Missing.String() && r.Completeness == llm.Exact.String():
		out = append(out, fmt.Sprintf("usage is called %q, the wire made it %q", r.Completeness, e.Stated))
	}
	for c := range llm.NumClasses {
		// What was generated before a cut was stated by nobody.
		if e.Stated == llm.Missing.String() || e.Stated == llm.Estimated.String() && !c.IsInput() {
			continue
		}
		if got, want := r.Usage[c.String()], e.Usage[c.String()]; got != want {
			out = append(out, fmt.Sprintf("%v is %v, the ledger says %v", c, got, want))
		}
	}
	return out
}
