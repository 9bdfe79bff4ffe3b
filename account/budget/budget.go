// Package budget counts what this node spends against limits of money by the hour,
// day or month. It knows this node's traffic only: a fleet's budget is the sum over
// its nodes.
package budget

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/pricing"
)

// Config says which budgets there are and where they are remembered.
type Config struct {
	Budgets []Budget      `yaml:"budgets"`
	File    string        `yaml:"file"` // what was spent, across restarts; "": not remembered
	Save    time.Duration `yaml:"save"` // how often the file is written when something was spent; 0: 30 seconds
}

// Budget is a limit on what some calls may cost in a period.
type Budget struct {
	Name  string        `yaml:"name"`
	Match Match         `yaml:"match"`
	By    string        `yaml:"by"`     // "": one limit; graph, node, tenant, model, namespace, service: one for each
	Per   string        `yaml:"period"` // hour, day, month
	Zone  string        `yaml:"zone"`   // in which days and months begin; "": UTC
	Limit pricing.Money `yaml:"limit"`  // USD
	// Thresholds are parts of the limit at which an event is logged; nil: 0.5, 0.8, 1.
	Thresholds []float64 `yaml:"thresholds"`

	zone *time.Location
}

// Match says whose calls count. Empty fields match all; * stands for any characters.
type Match struct {
	Graph     string `yaml:"graph"`
	Node      string `yaml:"node"`
	Tenant    string `yaml:"tenant"`
	Namespace string `yaml:"namespace"`
	Service   string `yaml:"service"`
	Provider  string `yaml:"provider"`
	Model     string `yaml:"model"`
}

// maxKeys bounds the limits of one budget; what comes after shares the key
// account.Other.
const maxKeys = 1000

// Ledger counts. It is safe for concurrent use.
type Ledger struct {
	config Config
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	lines map[lineKey]*line
	keys  map[string]int       // lines of each budget, but that of account.Other
	swept map[string]time.Time // of each budget: the period its lines were turned to
	dirty bool
}

type lineKey struct{ budget, key string }

// line is one limit: a budget, or one key of a budget that is split.
type line struct {
	budget   *Budget
	key      string
	start    time.Time // of the period
	spent    pricing.Money
	previous pricing.Money // of the period before
	calls    uint64
	unpriced uint64 // calls without a price: spent is a lower bound
	fired    []float64
}

// Open checks the config and reads what was spent before a restart. A file that
// cannot be read is put aside, logged, and begun anew.
func Open(c Config, log *slog.Logger) (*Ledger, error) { return openAt(c, log, time.Now) }

func openAt(c Config, log *slog.Logger, now func() time.Time) (*Ledger, error) {
	l := &Ledger{config: c, log: log, now: now, lines: map[lineKey]*line{}, keys: map[string]int{}, swept: map[string]time.Time{}}
	if l.config.Save <= 0 {
		l.config.Save = 30 * time.Second
	}
	l.config.Budgets = slices.Clone(c.Budgets)
	seen := map[string]bool{}
	for i := range l.config.Budgets {
		b := &l.config.Budgets[i]
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("budget %q: %w", b.Name, err)
		}
		if seen[b.Name] {
			return nil, fmt.Errorf("budget %q stands twice", b.Name)
		}
		seen[b.Name] = true
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	for i := range l.config.Budgets { // a limit shows before anything is spent
		if b := &l.config.Budgets[i]; b.By == "" {
			l.line(b, "", l.now())
		}
	}
	return l, nil
}

func (b *Budget) check() error {
	if b.Name == "" {
		return errors.New("a budget needs a name")
	}
	if !slices.Contains([]string{"", "graph", "node", "tenant", "model", "namespace", "service"}, b.By) {
		return fmt.Errorf("by %q: want graph, node, tenant, model, namespace or service", b.By)
	}
	if !slices.Contains([]string{"hour", "day", "month"}, b.Per) {
		return fmt.Errorf("period %q: want hour, day or month", b.Per)
	}
	if b.Limit.Sign() <= 0 {
		return errors.New("the limit must be above 0")
	}
	zone, err := time.LoadLocation(b.Zone) // "" is UTC
	if err != nil {
		return fmt.Errorf("zone %q: %w", b.Zone, err)
	}
	b.zone = zone
	if b.Thresholds == nil {
		b.Thresholds = []float64{0.5, 0.8, 1}
	}
	b.Thresholds = slices.Clone(b.Thresholds)
	slices.Sort(b.Thresholds)
	for _, t := range b.Thresholds {
		if !(t > 0 && t <= 100) {
			return fmt.Errorf("threshold %v: want a part of the limit, as 0.8", t)
		}
	}
	return nil
}

// period returns the bounds of the period that t lies in.
func (b *Budget) period(t time.Time) (start, end time.Time) {
	t = t.In(b.zone)
	y, m, d := t.Date()
	switch b.Per {
	case "month":
		return time.Date(y, m, 1, 0, 0, 0, 0, b.zone), time.Date(y, m+1, 1, 0, 0, 0, 0, b.zone)
	case "day":
		return time.Date(y, m, d, 0, 0, 0, 0, b.zone), time.Date(y, m, d+1, 0, 0, 0, 0, b.zone)
	}
	start = t.Truncate(time.Hour) // zones off by a part of an hour begin theirs with UTC's
	return start, start.Add(time.Hour)
}

// glob matches s against a pattern in which * stands for any characters; an empty
// pattern matches all.
func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

func (m *Match) holds(r *account.Record, model string) bool {
	o := r.Booked()
	return glob(m.Graph, o.Graph) && glob(m.Node, o.Node) && glob(m.Tenant, o.Tenant) &&
		glob(m.Namespace, o.Namespace) && glob(m.Service, o.ServiceName) &&
		glob(m.Provider, r.Call.Provider) && glob(m.Model, model)
}

// keyOf is the line that r counts in; a name off the wire may be anything.
func (b *Budget) keyOf(r *account.Record, model string) string {
	o := r.Booked()
	switch b.By {
	case "graph":
		return account.Label(o.Graph)
	case "node":
		return account.Label(o.Node)
	case "tenant":
		return account.Label(o.Tenant)
	case "namespace":
		return account.Label(o.Namespace)
	case "service":
		return account.Label(o.ServiceName)
	case "model":
		return account.Label(model)
	}
	return ""
}

// Add counts a record: its cost where it is the one of its call that is summed. A
// call counts in the period in which it began; one of the period before is booked
// there, an older one not at all.
func (l *Ledger) Add(r *account.Record) {
	if !r.Counted || r.Call == nil {
		return
	}
	model := r.Call.ResponseModel
	if model == "" {
		model = r.Call.RequestModel
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	when := r.Time
	if when.IsZero() || when.After(now) {
		when = now
	}
	for i := range l.config.Budgets {
		b := &l.config.Budgets[i]
		if !b.Match.holds(r, model) {
			continue
		}
		key := b.keyOf(r, model)
		if b.By != "" && key == "" {
			continue // nobody's: it has no limit of its own
		}
		l.book(b, key, r, when, now)
	}
}

func (l *Ledger) book(b *Budget, key string, r *account.Record, when, now time.Time) {
	n := l.line(b, key, now)
	l.dirty = true
	if when.Before(n.start) {
		if before, _ := b.period(n.start.Add(-time.Second)); !when.Before(before) && r.Price.Priced() {
			n.previous = n.previous.Add(r.Price.USD)
		}
		return
	}
	n.calls++
	if !r.Price.Priced() {
		n.unpriced++
		return
	}
	n.spent = n.spent.Add(r.Price.USD)
	n.fire(l.log, now)
}

// line returns the line of a key, turned to the period of now.
func (l *Ledger) line(b *Budget, key string, now time.Time) *line {
	l.turn(b, now)
	n := l.lines[lineKey{b.Name, key}]
	if n == nil && b.By != "" && l.keys[b.Name] >= maxKeys {
		key = account.Other
		n = l.lines[lineKey{b.Name, key}]
	}
	if n == nil {
		n = &line{budget: b, key: key}
		n.start, _ = b.period(now)
		l.put(n)
	}
	return n
}

func (l *Ledger) put(n *line) {
	at := lineKey{n.budget.Name, n.key}
	if l.lines[at] == nil && n.key != account.Other {
		l.keys[n.budget.Name]++
	}
	l.lines[at] = n
}

// turn begins a new period of b when now lies in one. Keys that had no call in the last
// and spent nothing in the one before make room.
func (l *Ledger) turn(b *Budget, now time.Time) {
	start, _ := b.period(now)
	if !start.After(l.swept[b.Name]) {
		return
	}
	l.swept[b.Name] = start
	for at, n := range l.lines {
		if n.budget != b {
			continue
		}
		n.turn(now)
		if b.By != "" && n.empty() {
			delete(l.lines, at)
			if n.key != account.Other {
				l.keys[b.Name]--
			}
		}
	}
}

func (l *Ledger) turnAll(now time.Time) {
	for i := range l.config.Budgets {
		l.turn(&l.config.Budgets[i], now)
	}
}

// empty reports whether n holds nothing that a new line would not.
func (n *line) empty() bool { return n.calls == 0 && n.previous.IsZero() }

// turn begins a new period when now lies in one.
func (n *line) turn(now time.Time) {
	start, _ := n.budget.period(now)
	if !start.After(n.start) {
		return
	}
	spent := n.spent
	if before, _ := n.budget.period(start.Add(-time.Second)); !before.Equal(n.start) {
		spent = pricing.Money{} // a period without a call lies between
	}
	*n = line{budget: n.budget, key: n.key, start: start, previous: spent}
}

// fire logs every threshold that was passed and not logged before.
func (n *line) fire(log *slog.Logger, now time.Time) {
	share := n.share()
	for _, t := range n.budget.Thresholds {
		if share < t || slices.Contains(n.fired, t) {
			continue
		}
		n.fired = append(n.fired, t)
		s := n.state(now)
		level := slog.LevelWarn
		if t >= 1 {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, "budget threshold passed", "scope", "node", "budget", s.Budget, "key", s.Key,
			"threshold", t, "spent_usd", s.Spent.String(), "limit_usd", s.Limit.String(),
			"burn_rate", s.BurnRate, "period", s.Period, "until", s.End)
	}
}

func (n *line) share() float64 { return n.spent.Float64() / n.budget.Limit.Float64() }

// State is a budget, or one key of it, at a moment.
type State struct {
	Budget   string        `json:"budget"`
	Key      string        `json:"key,omitempty"`
	Scope    string        `json:"scope"` // "node": this node's traffic only
	Period   string        `json:"period"`
	Start    time.Time     `json:"start"`
	End      time.Time     `json:"end"`
	Spent    pricing.Money `json:"spent_usd"`
	Limit    pricing.Money `json:"limit_usd"`
	Previous pricing.Money `json:"previous_usd"` // spent in the period before
	// BurnRate is the part of the limit that is spent over the part of the period
	// that has passed: at 1 the limit lasts exactly.
	BurnRate float64 `json:"burn_rate"`
	Calls    uint64  `json:"calls"`
	Unpriced uint64  `json:"unpriced_calls"` // Spent is a lower bound when there are any
}

// Label names the state in a metric: the budget, and the key where it is split.
func (s *State) Label() string {
	if s.Key == "" {
		return s.Budget
	}
	return s.Budget + "/" + s.Key
}

// minElapsed keeps the burn rate of a period's first moments from leaping.
const minElapsed = 0.001

func (n *line) state(now time.Time) State {
	_, end := n.budget.period(n.start)
	elapsed := float64(now.Sub(n.start)) / float64(end.Sub(n.start))
	return State{
		Budget: n.budget.Name, Key: n.key, Scope: "node", Period: n.budget.Per, Start: n.start, End: end,
		Spent: n.spent, Limit: n.budget.Limit, Previous: n.previous, Calls: n.calls, Unpriced: n.unpriced,
		BurnRate: n.share() / min(max(elapsed, minElapsed), 1),
	}
}

// States returns every budget, by name and key.
func (l *Ledger) States() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.turnAll(now)
	out := make([]State, 0, len(l.lines))
	for _, n := range l.lines {
		out = append(out, n.state(now))
	}
	slices.SortFunc(out, func(a, b State) int {
		if a.Budget != b.Budget {
			return slices.IndexFunc(l.config.Budgets, func(x Budget) bool { return x.Name == a.Budget }) -
				slices.IndexFunc(l.config.Budgets, func(x Budget) bool { return x.Name == b.Budget })
		}
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return out
}
