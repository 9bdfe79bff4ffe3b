//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/trial"
)

// verdict is what became of the ledger's calls in the agent's books.
type verdict struct {
	calls, right, lost int
	problems           []string
}

func (v *verdict) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// err is all problems as one, nil when there is none.
func (v *verdict) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return errors.New("differs: " + strings.Join(v.problems, "\ndiffers: "))
}

// audit holds the agent's records and its /metrics to the ledger, call by call and in sum.
func (v *verdict) audit(ctx context.Context, w io.Writer, d *daemonset, ledger []*sim.Entry) error {
	records, others, err := d.said(ledger)
	if err != nil {
		return err
	}
	scrape, err := d.scrape(ctx)
	if err != nil {
		return err
	}
	v.calls = len(ledger)

	byRecord := make(map[*ledgercheck.Record]*record, len(records))
	plain := make([]*ledgercheck.Record, len(records))
	late := make(map[*record]bool)
	for i, r := range records {
		plain[i] = &r.Record
		byRecord[plain[i]] = r
		if r.Partial == "late_attach" { // the ledger cannot know
			late[r], r.Partial = true, ""
		}
	}
	first := firsts(records)
	report := ledgercheck.Check(ledger, plain, ledgercheck.Options{Price: trial.Price})
	v.problems = append(v.problems, report.Mismatches...)

	want := make(map[booking]*sum)
	for _, p := range report.Pairs {
		must, err := truth(p.Entry)
		if err != nil {
			v.problem("%v", err)
			continue
		}
		if want[must.booking] == nil {
			want[must.booking] = newSum()
		}
		want[must.booking].add(p.Entry)
		if p.Record == nil {
			v.lost++
			continue
		}
		r := byRecord[p.Record]
		if older := first[r] && must.connected > 0 && r.agent >= must.connected; late[r] != older {
			v.problem("%s of %s is late_attach: %v, want %v", p.Entry.ID, p.Entry.Client, late[r], older)
		}
		got := word{booking{r.Graph, r.Node, r.Service, r.Pod, r.Container, r.Adapter}, r.NodeSource, r.workload}
		switch {
		case got != must.word || r.Namespace != must.namespace():
			v.problem("%s of %s is booked to %+v, namespace %q", p.Entry.ID, p.Entry.Client, got, r.Namespace)
		case len(p.Diffs) == 0:
			v.right++
		}
	}
	v.metrics(w, d, scrape, want, others)
	return nil
}

// namespace is that of all pods but the agent's.
func (b booking) namespace() string {
	if b.Pod == "" {
		return ""
	}
	return "default"
}

// sum is what the ledger says of one container's calls.
type sum struct {
	calls  int
	tokens map[string]float64
	usd    *big.Rat
}

func newSum() *sum { return &sum{tokens: make(map[string]float64), usd: new(big.Rat)} }

// plus adds another container's.
func (s *sum) plus(o *sum) {
	s.calls += o.calls
	s.usd.Add(s.usd, o.usd)
	for class, n := range o.tokens {
		s.tokens[class] += n
	}
}

func (s *sum) add(e *sim.Entry) {
	s.calls++
	for class, n := range e.Usage {
		s.tokens[class] += n
	}
	if usd, ok := trial.Price(e); ok {
		if r, ok := new(big.Rat).SetString(usd); ok {
			s.usd.Add(s.usd, r)
		}
	}
}

// metrics compares the counters: those of each pod and node, and the sums over all,
// where a call counted twice or booked elsewhere would show.
func (v *verdict) metrics(w io.Writer, d *daemonset, now trial.Samples, want map[booking]*sum, others int) {
	order := slices.SortedFunc(maps.Keys(want), func(a, b booking) int {
		return strings.Compare(a.Pod+"/"+a.Container, b.Pod+"/"+b.Container)
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POD\tGRAPH\tNODE\tSERVICE\tCALLS\tOF LEDGER\tTOKENS\tUSD")
	all, pods := newSum(), newSum()
	for _, b := range order {
		s := want[b]
		all.plus(s)
		if b.Pod != "" {
			pods.plus(s)
		}
		labels := []string{"tollwire_graph", b.Graph, "tollwire_node", b.Node, "service_name", b.Service,
			"k8s_pod_name", b.Pod, "k8s_namespace_name", b.namespace(), "k8s_pod_label_adapter", b.Adapter}
		calls := d.sum(now, "tollwire_calls_total", append(labels, "role", "client")...)
		tokens, usd := d.sum(now, "tollwire_tokens_total", labels...), d.sum(now, "tollwire_cost_usd_total", labels...)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.0f\t%d\t%.0f\t%.6f\n", b.Pod, b.Graph, b.Node, b.Service, calls, s.calls, tokens, usd)
		v.equal(b.Pod+"/"+b.Container, s, calls, func(class string) float64 {
			return d.sum(now, "tollwire_tokens_total", append(labels, "class", class)...)
		}, usd)
	}
	t.Flush()
	sums := func(whose string, want *sum, scope ...string) {
		v.equal(whose, want, d.sum(now, "tollwire_calls_total", append(scope, "role", "client")...), func(class string) float64 {
			return d.sum(now, "tollwire_tokens_total", append(scope, "class", class)...)
		}, d.sum(now, "tollwire_cost_usd_total", scope...))
	}
	sums("all pods", pods, "k8s_namespace_name", "default")
	if others == 0 {
		sums("all", all)
	} else {
		fmt.Fprintf(w, "left out: %d calls of this machine's other programs, which the agent saw as well\n", others)
	}
	if n := d.sum(now, "tollwire_attribution_incomplete_total"); n > 0 {
		v.problem("%.0f calls went out before the API server had named their pod", n)
	}
	for reason, n := range d.dropped(now) {
		if strings.HasSuffix(reason, " missed") { // of whatever program of this machine; a pod's call would say `lost`
			fmt.Fprintf(w, "left out: %.0f bytes that no tap was told of: %s\n", n, reason)
			continue
		}
		v.problem("%.0f bytes were dropped: %s", n, reason)
	}
	fmt.Fprint(w, "requests that the API server did not answer:")
	for _, kind := range []string{"unreachable", "forbidden", "expired", "timeout", "other"} {
		n := d.sum(now, "tollwire_kubernetes_failures_total", "kind", kind)
		fmt.Fprintf(w, " %.0f %s", n, kind)
		if n == 0 && kind != "other" {
			v.problem("/metrics counts no %s API server", kind)
		}
	}
	fmt.Fprintln(w)
}

func (v *verdict) equal(whose string, want *sum, calls float64, tokens func(class string) float64, usd float64) {
	if calls != float64(want.calls) {
		v.problem("%s: /metrics counts %.0f calls, the ledger %d", whose, calls, want.calls)
	}
	for class, n := range want.tokens {
		if got := tokens(class); got != n {
			v.problem("%s: /metrics counts %.0f tokens of class %s, the ledger %.0f", whose, got, class, n)
		}
	}
	if exact, _ := want.usd.Float64(); usd-exact > 1e-9 || exact-usd > 1e-9 {
		v.problem("%s: /metrics says %.9f USD, the ledger's calls cost %.9f", whose, usd, exact)
	}
}
