package pricing

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Show writes what the book says. With a model it writes the entry that a call with
// that name is priced by; with a provider alone its models; with neither, the
// providers. It returns false when the book knows none.
func (b *Book) Show(w io.Writer, provider, model string) bool {
	if provider == "" {
		for _, p := range b.providers {
			fmt.Fprintf(w, "%s: %d models%s\n", p.id, len(p.models), p.traits())
		}
		return true
	}
	p := b.byName[strings.ToLower(provider)]
	if p == nil {
		return false
	}
	if model == "" {
		fmt.Fprintf(w, "%s: %d models%s\n", p.id, len(p.models), p.traits())
		for _, a := range p.adjust {
			fmt.Fprintf(w, "  adjust %s\n", a)
		}
		for _, m := range p.models {
			m.show(w, p)
		}
		return true
	}
	r := b.resolve(p, model, "")
	if r.model == nil {
		return false
	}
	r.model.show(w, b.listOf(r.model))
	for _, a := range r.adjust {
		fmt.Fprintf(w, "  adjust %s\n", a)
	}
	return true
}

// listOf is the provider in whose list a model stands.
func (b *Book) listOf(m *model) *provider {
	for _, p := range b.providers {
		if p.byID[m.id] == m {
			return p
		}
	}
	return nil
}

func (p *provider) traits() string {
	var s []string
	if len(p.names) > 0 {
		s = append(s, "also "+strings.Join(p.names, ", "))
	}
	if len(p.hosts) > 0 {
		s = append(s, "at "+strings.Join(p.hosts, ", "))
	}
	for _, f := range p.fallback {
		s = append(s, "falls back on "+f.id)
	}
	if p.subscription {
		s = append(s, "paid by subscription")
	}
	if p.selfHosted {
		s = append(s, "self-hosted")
	}
	if len(s) == 0 {
		return ""
	}
	return "; " + strings.Join(s, "; ")
}

func (m *model) show(w io.Writer, p *provider) {
	fmt.Fprintf(w, "%s/%s (%s)\n", p.id, m.id, m.at)
	for _, c := range m.cards {
		fmt.Fprintf(w, "  %s\n", c)
		if c.from != "" {
			fmt.Fprintf(w, "    source: %s\n", c.from)
		}
	}
}

// String writes a card in one line: conditions, prices, steps.
func (c *card) String() string {
	parts := c.when.words()
	parts = append(parts, c.base.words(nil)...)
	for _, s := range c.steps {
		kind := "over"
		if s.marginal {
			kind = "marginal over"
		}
		parts = append(parts, fmt.Sprintf("%s %.0f: [%s]", kind, s.over, strings.Join(s.rates.words(&c.base), ", ")))
	}
	return strings.Join(parts, ", ")
}

func (a *adjust) String() string {
	parts := append(a.when.words(), "times "+nano(a.times))
	if a.classes != allTokens {
		parts = append(parts, "for "+strings.Join(classNames(a.classes), " "))
	}
	return strings.Join(parts, ", ")
}

func classNames(set uint32) (out []string) {
	for c := range llm.NumClasses {
		if set&(1<<c) != 0 {
			out = append(out, c.String())
		}
	}
	return out
}

// nano writes a factor of 1e-9.
func nano(n uint64) string { return Money{lo: 1e12}.Mul(n).String() }

func (w *when) words() (out []string) {
	if len(w.tiers) > 0 {
		out = append(out, "tier "+strings.Join(w.tiers, "|"))
	}
	if len(w.regions) > 0 {
		out = append(out, "region "+strings.Join(w.regions, "|"))
	}
	if w.from != 0 {
		out = append(out, "from "+instant(w.from))
	}
	if w.until != 0 {
		out = append(out, "until "+instant(w.until))
	}
	if w.clock != nil {
		out = append(out, w.clock.String())
	}
	if w.volume != 0 {
		out = append(out, fmt.Sprintf("over %d tokens a month", w.volume))
	}
	return out
}

func (c *clock) String() string {
	var s []string
	if c.start != c.end {
		s = append(s, fmt.Sprintf("%02d:%02d-%02d:%02d", c.start/60, c.start%60, c.end/60, c.end%60))
	}
	if c.days != everyDay {
		var days []string
		for i, name := range []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat", "holiday"} {
			if c.days&(1<<i) != 0 {
				days = append(days, name)
			}
		}
		s = append(s, strings.Join(days, "|"))
	}
	return strings.Join(append(s, c.zone.String()), " ")
}

func instant(unix int64) string {
	t := time.Unix(unix, 0).UTC()
	if t.Equal(t.Truncate(24 * time.Hour)) {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}

// words writes the prices that the book states, but for those equal to base's.
func (r *rates) words(base *rates) (out []string) {
	for c := range llm.NumClasses {
		if r.own&(1<<c) == 0 || base != nil && base.own&(1<<c) != 0 && base.usd[c] == r.usd[c] {
			continue
		}
		out = append(out, c.String()+" "+perUnit(c, r.usd[c]))
	}
	for _, c := range slices.Sorted(maps.Keys(r.sized)) {
		by := r.sized[c]
		var s []string
		for _, size := range slices.Sorted(maps.Keys(by)) {
			s = append(s, size+" "+perUnit(c, by[size]))
		}
		out = append(out, c.String()+" {"+strings.Join(s, ", ")+"}")
	}
	for _, name := range slices.Sorted(maps.Keys(r.tools)) {
		out = append(out, "tool "+name+" "+r.tools[name].Mul(1000).String()+"/k")
	}
	return out
}

// perUnit writes a price as price lists do.
func perUnit(c llm.Class, usd Money) string {
	switch {
	case c.IsToken(), c == llm.Characters:
		return usd.Mul(1e6).String()
	case c == llm.Seconds, c == llm.Images:
		return usd.String() + " each"
	}
	return usd.Mul(1000).String() + "/k"
}
