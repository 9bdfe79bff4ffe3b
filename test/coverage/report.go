package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/probes/signature"
)

// exact counts the calls whose record says what the ledger does.
func (r *row) exact() (calls, seen, exact int, late []time.Duration) {
	for _, p := range r.pairs {
		calls++
		if p.Record == nil {
			continue
		}
		seen++
		if len(p.Diffs) == 0 {
			exact++
		}
		if contents := p.Entry.Contents(); p.Record.FirstContent != nil && len(contents) > 0 {
			sent := p.Entry.Started.Add(time.Duration(contents[0] - p.Entry.FirstByte))
			read := p.Record.Time.Add(time.Duration(*p.Record.FirstContent * 1e9))
			late = append(late, read.Sub(sent).Abs())
		}
	}
	return calls, seen, exact, late
}

func median[T ~int64](all []T) T {
	if len(all) == 0 {
		return 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// bearable is how much longer a program may run with the agent.
const bearable = 1.10

// slowed is how much longer the program runs with the agent, by the medians of all runs
// but the first ones.
func (r *row) slowed() float64 {
	var took [2][]time.Duration
	for with, runs := range r.runs {
		for _, one := range runs {
			if !one.first {
				took[with] = append(took[with], one.took)
			}
		}
	}
	return median(took[1]).Seconds() / max(median(took[0]).Seconds(), 1e-9)
}

// harm says what is different for the program where the agent runs; empty: nothing.
func (r *row) harm() string {
	for _, a := range r.runs[1] {
		b := r.runs[0][0]
		switch {
		case a.exit != b.exit:
			return fmt.Sprintf("exit %d, without the agent %d: %s", a.exit, b.exit, strings.TrimSpace(a.said))
		case a.said != b.said && steady(r.runs[0], run.text):
			return fmt.Sprintf("it printed %q, without the agent %q", a.said, b.said)
		case len(a.said) != len(b.said) && steady(r.runs[0], run.size):
			return fmt.Sprintf("%d bytes printed, without the agent %d", len(a.said), len(b.said))
		case a.calls != b.calls:
			return fmt.Sprintf("%d calls, without the agent %d", a.calls, b.calls)
		}
	}
	return ""
}

func (r run) text() string { return r.said }
func (r run) size() int    { return len(r.said) }

// steady reports whether the program prints the same each time it runs alone, or as much.
func steady[T comparable](runs []run, of func(run) T) bool {
	return !slices.ContainsFunc(runs, func(r run) bool { return of(r) != of(runs[0]) })
}

// strange returns a source that saw the program and has no business with its library.
func (r *row) strange() string {
	for _, source := range r.sources {
		if !slices.Contains(r.library, source) {
			return source
		}
	}
	return ""
}

// verdict returns what is not as it must be, and the closing line.
func verdict(rows []*row) (bad []string, closing string) {
	seen, right := 0, 0
	for _, r := range rows {
		if r.wrong != nil {
			if r.unseen == "" {
				bad = append(bad, fmt.Sprintf("%s could not be run: %v", r.name, r.wrong))
			}
			continue
		}
		calls, n, exact, _ := r.exact()
		if n > 0 {
			seen++
		}
		if n > 0 && exact == n {
			right++
		}
		switch {
		case calls == 0:
			bad = append(bad, fmt.Sprintf("%s made no call: %s", r.name, tail(r.runs[0])))
		case r.unseen != "" && n == 0 && r.reason == "":
			bad = append(bad, fmt.Sprintf("%s is not seen, and the agent does not say why", r.name))
		case r.unseen == "" && (r.missed > 0 || exact < n):
			bad = append(bad, fmt.Sprintf("%s: of %d calls %d were seen, %d with everything right%s", r.name, calls, n, exact, r.diffs()))
		}
		if by := r.strange(); by != "" {
			bad = append(bad, fmt.Sprintf("%s is seen by %s: want %s alone", r.name, by, strings.Join(r.library, ", ")))
		}
		if h := r.harm(); h != "" {
			bad = append(bad, r.name+" behaves differently: "+h)
		}
		if x := r.slowed(); x > bearable {
			bad = append(bad, fmt.Sprintf("%s runs %.2fx as long with the agent", r.name, x))
		}
	}
	return bad, fmt.Sprintf("coverage: %d of %d programs seen, %d with exact usage", seen, len(rows), right)
}

func tail(runs []run) string {
	if len(runs) == 0 {
		return "it did not run"
	}
	s := strings.TrimSpace(runs[0].said)
	return s[max(0, len(s)-300):]
}

func (r *row) diffs() string {
	for _, p := range r.pairs {
		if len(p.Diffs) > 0 {
			return ": " + strings.Join(p.Diffs, "; ")
		}
	}
	return ""
}

// report writes the table.
func report(rows []*row, set signature.Set) []byte {
	var b bytes.Buffer
	b.WriteString(`# Coverage

Written by ` + "`make coverage`" + `: every client that can be had on this machine, unmodified, streams from the
provider simulator over TLS, with the agent and without it. A call is exact
when its record's model, usage, finish reason, status and stream flag are the simulator's ledger's. *First
call* counts the rounds in which the very first call was caught, the program's TLS library being new to the
round's own agent (all others must be); *late* is one whose connection was older than the tap, of which the record
says ` + "`late_attach`" + `. A large program without symbols is looked through in the background
first, which takes seconds, once a file (*once scanned*). *Timing* is the median difference between the moment of the first content
as the agent gives it, read by the program, and as the simulator does, which wrote it. *Run time* is the median with the agent over
that without it, of all runs but the first, which alternate. Who is above 1.10x after three rounds has up to three
more, all of which count, and fails if it stays there. No program ended or printed otherwise because of the agent, or
it says so.

| program | version | TLS | tapped by | calls seen | exact | first call | timing | run time |
|---|---|---|---|---|---|---|---|---|
`)
	for _, r := range rows {
		if r.wrong != nil {
			continue
		}
		calls, n, exact, late := r.exact()
		by, caught, timing := strings.Join(r.sources, ", "), 0, "–"
		if n == 0 {
			by = "not seen: " + r.reason
		}
		for _, ok := range r.first {
			caught += btoi(ok)
		}
		first := fmt.Sprintf("%d of %d", caught, len(r.first))
		if r.late > 0 {
			first += fmt.Sprintf(", %d late", r.late)
		}
		if r.tapped != nil {
			first = "once scanned"
		}
		if late != nil {
			timing = fmt.Sprintf("%.2f ms", median(late).Seconds()*1000)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d of %d | %d | %s | %s | %.2fx |\n",
			r.name, r.says, r.tls, by, n, calls, exact, first, timing, r.slowed())
	}
	for _, r := range rows {
		if r.wrong != nil {
			reason, _, _ := strings.Cut(r.wrong.Error(), "\n")
			fmt.Fprintf(&b, "\n%s could not be run here: %s\n", r.name, reason)
		}
	}
	bad, closing := verdict(rows)
	fmt.Fprintf(&b, "\n%s", closing)
	if len(bad) > 0 {
		b.WriteString("; what was not as it must be:\n")
	} else {
		b.WriteString("; all of it as it must be.\n")
	}
	for _, what := range bad {
		what, _, _ = strings.Cut(what, "\n")
		fmt.Fprintf(&b, "- %s\n", what)
	}
	assembly(&b, set)
	return b.Bytes()
}
