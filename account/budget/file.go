package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/pricing"
)

// saved is the file's content.
type saved struct {
	Version int         `json:"version"`
	Lines   []savedLine `json:"lines"`
}

type savedLine struct {
	Budget   string        `json:"budget"`
	Key      string        `json:"key,omitempty"`
	Per      string        `json:"period"`
	Start    time.Time     `json:"start"`
	Spent    pricing.Money `json:"spent_usd"`
	Previous pricing.Money `json:"previous_usd"`
	Calls    uint64        `json:"calls"`
	Unpriced uint64        `json:"unpriced_calls"`
	Fired    []float64     `json:"thresholds_passed,omitempty"`
}

const (
	savedVersion = 1
	maxSaved     = 64 << 20 // bytes
)

// load reads the file. Lines of budgets that are gone, or whose period is another,
// are left out.
func (l *Ledger) load() error {
	if l.config.File == "" || len(l.config.Budgets) == 0 {
		return nil
	}
	info, err := os.Stat(l.config.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open budgets: %w", err)
	}
	var s saved
	if info.Size() > maxSaved {
		err = errors.New("too large")
	} else {
		var data []byte
		if data, err = os.ReadFile(l.config.File); err != nil {
			return fmt.Errorf("read budgets: %w", err)
		}
		if err = json.Unmarshal(data, &s); err == nil && s.Version != savedVersion {
			err = fmt.Errorf("version %d", s.Version)
		}
	}
	if err != nil {
		aside := l.config.File + ".bad"
		l.log.Error("budgets begin anew: what was spent cannot be read", "file", l.config.File, "kept_as", aside, "err", err)
		if err := os.Rename(l.config.File, aside); err != nil {
			return fmt.Errorf("put budgets aside: %w", err)
		}
		return nil
	}
	now := l.now()
	for _, in := range s.Lines {
		for i := range l.config.Budgets {
			b := &l.config.Budgets[i]
			if b.Name != in.Budget || b.Per != in.Per || (b.By == "") != (in.Key == "") ||
				in.Spent.Sign() < 0 || in.Previous.Sign() < 0 || in.Start.After(now) {
				continue
			}
			n := &line{
				budget: b, key: in.Key, spent: in.Spent, previous: in.Previous,
				calls: in.Calls, unpriced: in.Unpriced, fired: in.Fired,
			}
			n.start, _ = b.period(in.Start)
			if n.turn(now); b.By == "" || !n.empty() && (n.key == account.Other || l.keys[b.Name] < maxKeys) {
				l.put(n)
			}
		}
	}
	return nil
}

// Save writes the file when something was spent since it was written last: beside
// it, then in its place, so that it is whole at any moment.
func (l *Ledger) Save() error {
	if l.config.File == "" {
		return nil
	}
	data, err := l.snapshot()
	if data == nil || err != nil {
		return err
	}
	if err = replace(l.config.File, data); err != nil {
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
		return fmt.Errorf("save budgets: %w", err)
	}
	return nil
}

func (l *Ledger) snapshot() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty {
		return nil, nil
	}
	l.dirty = false
	l.turnAll(l.now())
	s := saved{Version: savedVersion, Lines: make([]savedLine, 0, len(l.lines))}
	for _, n := range l.lines {
		s.Lines = append(s.Lines, savedLine{
			n.budget.Name, n.key, n.budget.Per, n.start, n.spent, n.previous, n.calls, n.unpriced, n.fired,
		})
	}
	return json.Marshal(s)
}

func replace(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".budgets-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// Run saves now and then until ctx ends; who adds last saves last. A failure is logged
// once until one succeeds.
func (l *Ledger) Run(ctx context.Context) {
	tick := time.NewTicker(l.config.Save)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err := l.Save()
			if err != nil && !failed {
				l.log.Error("budgets are not saved", "err", err)
			}
			failed = err != nil
		}
	}
}
