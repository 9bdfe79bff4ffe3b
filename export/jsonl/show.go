package jsonl

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/tollwire/tollwire/pricing"
)

// ErrNoTrace is returned by Show when no record has the trace id.
var ErrNoTrace = errors.New("no record of that trace")

// maxLine bounds what is read as one line; records are a few kilobytes.
const maxLine = 4 << 20

// Files returns path's rotated files and path itself, the oldest first.
func Files(path string) ([]string, error) {
	files, err := rotatedFiles(path)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		files = append(files, path)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("list records: %s: %w", path, os.ErrNotExist)
	}
	return files, nil
}

// Trace returns the records of the trace in the files, in order of time.
func Trace(files []string, traceID string) ([]*Line, error) {
	needle := []byte(`"trace_id":"` + strings.ToLower(traceID) + `"`)
	var found []*Line
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read records: %w", err)
		}
		sc := bufio.NewScanner(f)
		sc.Buffer(make([]byte, 0, 64<<10), maxLine)
		for sc.Scan() {
			if !bytes.Contains(sc.Bytes(), needle) {
				continue
			}
			if l, err := Parse(sc.Bytes()); err == nil {
				found = append(found, l)
			}
		}
		if err := errors.Join(sc.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	slices.SortStableFunc(found, func(a, b *Line) int { return a.Time.Compare(b.Time) })
	return found, nil
}

// Show writes the account of a trace: every call of it, then its sum, each call
// counted once. It returns ErrNoTrace when there is none.
func Show(w io.Writer, files []string, traceID string) error {
	lines, err := Trace(files, traceID)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return fmt.Errorf("%w: %s", ErrNoTrace, traceID)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "trace %s\n\n", lines[0].TraceID)
	fmt.Fprintln(t, "AT\tROLE\tNODE\tPROCESS\tMODEL\tSTATUS\tIN\tOUT\tFIRST\tTOOK\tUSD\tNOTE")
	var calls int
	var in, out float64
	var usd pricing.Money
	var notes []string
	for _, l := range lines {
		fmt.Fprintf(t, "+%.3fs\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			l.Time.Sub(lines[0].Time).Seconds(), l.Role, dash(strings.Trim(l.Graph+"/"+l.Node, "/")), l.process(),
			dash(cmp.Or(l.ResponseModel, l.RequestModel, l.API)), l.status(), number(l.InputTokens, "%.0f"), number(l.OutputTokens, "%.0f"),
			number(l.FirstContent, "%.3fs"), number(l.Duration, "%.3fs"), dash(l.CostUSD), l.note())
		if !l.Counted() {
			continue
		}
		calls++
		in, out = in+value(l.InputTokens), out+value(l.OutputTokens)
		if l.CostUSD == "" {
			notes = append(notes, cmp.Or(l.Unpriced, "no price"))
			continue
		}
		m, err := pricing.ParseMoney(l.CostUSD)
		if err != nil {
			return fmt.Errorf("cost of %s: %w", l.SpanID, err)
		}
		usd = usd.Add(m)
	}
	fmt.Fprintf(t, "\n%d calls, %.0f tokens in, %.0f out, %s USD", calls, in, out, usd)
	if len(notes) > 0 {
		slices.Sort(notes)
		fmt.Fprintf(t, " and %d without a price (%s)", len(notes), strings.Join(slices.Compact(slices.Clone(notes)), ", "))
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write account: %w", err)
	}
	return nil
}

func (l *Line) process() string {
	if pod := l.Kubernetes["k8s.pod.name"]; pod != "" {
		return dash(pod)
	}
	return fmt.Sprintf("%s[%d]", dash(l.Executable), l.PID)
}

func (l *Line) status() string {
	switch {
	case l.ErrorType != "":
		return dash(l.ErrorType)
	case l.Status == 0:
		return "-"
	}
	return fmt.Sprint(l.Status)
}

// note says what the figures of the line must be read with.
func (l *Line) note() string {
	var n []string
	for _, s := range []string{l.Relay, l.Partial} {
		if s != "" {
			n = append(n, s)
		}
	}
	if l.Completeness != "exact" {
		n = append(n, "usage "+l.Completeness)
	}
	return strings.Join(n, ", ")
}

// dash returns s fit for a terminal: names off the wire may hold anything.
func dash(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	return cmp.Or(s, "-")
}

func value(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}

func number(p *float64, format string) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf(format, *p)
}
