package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/probes"
)

func checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this kernel and these privileges allow, and which programs are seen",
		Long: `Check tries everything that "tollwire run" would do, takes it back at once, and says what
works; what does not, what that costs and what to do about it; and for every process with
TLS in it whether it is seen, or why not. It runs with whatever it is allowed.

The exit status is 0 unless nothing at all can be captured.`,
		Example: "  sudo tollwire check\n  sudo tollwire check --json | jq '.processes[] | select(.seen | not)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			r, err := probes.Check(cmd.Context(), cfg.probes(slog.New(slog.DiscardHandler)))
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(struct {
					*probes.Report
					Usable bool `json:"usable"`
				}{r, r.Usable()})
			} else {
				err = printReport(cmd.OutOrStdout(), r)
			}
			if err != nil {
				return fmt.Errorf("write report: %w", err)
			}
			if !r.Usable() {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().StringP("config", "c", "", "YAML configuration (env TOLLWIRE_CONFIG)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	defaults().flags(cmd.Flags())
	return cmd
}

// printReport writes r as tables for people.
func printReport(out io.Writer, r *probes.Report) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
	row("KERNEL\t%s %s", r.Kernel, r.Machine)
	for _, f := range r.Features {
		row("  %s\t%s\t%s", f.Name, f.State, f.Detail)
	}
	row("\nCAPABILITIES")
	for _, c := range r.Capabilities {
		state := "missing"
		switch {
		case c.By != "":
			state = "by " + c.By
		case c.Held:
			state = "held"
		case !c.Needed:
			state = "not needed"
		}
		row("  %s\t%s\t%s", c.Name, state, c.For)
	}
	row("\nTAPS")
	for _, t := range r.Taps {
		row("  %s\t%s\t%s", t.Tap, t.State, t.Error)
	}
	way := "by " + r.Sockets.Way
	if r.Sockets.Way == "off" {
		way = "not seen"
	}
	row("\nSOCKETS\t%s\t%s", way, cmp.Or(r.Sockets.Error, r.Sockets.Note))
	for _, f := range r.Sockets.Better {
		row("  not by %s\t%s\t%s", f.Name, f.State, f.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := printProcesses(out, r); err != nil {
		return err
	}
	return printMissing(out, r)
}

func printProcesses(out io.Writer, r *probes.Report) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nPROCESSES WITH TLS\n  PID\tPROGRAM\tTLS\tSEEN\tFILE\tWHY NOT")
	all := slices.Clone(r.Processes)
	slices.SortFunc(all, func(a, b probes.Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Library, b.Library))
	})
	seen := 0
	for _, p := range all {
		yes, why := "no", p.Reason
		if p.Seen {
			yes, seen = "yes", seen+1
		}
		if text, ok := reasons[p.Reason]; ok {
			why = text
		}
		if p.Detail != "" {
			why += ": " + p.Detail
		}
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\t%s\n", p.PID, p.Name, p.TLS, yes, p.Library, why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "  %d seen, %d not", seen, len(all)-seen)
	if err == nil && r.Closed > 0 {
		_, err = fmt.Fprintf(out, "; processes that may not be looked at, or not in all their files: %d", r.Closed)
	}
	if err == nil {
		_, err = fmt.Fprintln(out)
	}
	return err
}

// reasons say why a process is not seen, for people.
var reasons = map[string]string{
	"stripped":      "linked in and stripped: no function has a name",
	"no_tap":        "there is no tap for this library yet",
	"attach_failed": "the tap cannot be attached",
	"not_loaded":    "the tap is not loaded",
	"unreadable":    "the file may not be read",
}

// printMissing writes what is missing, what that costs and what to do.
func printMissing(out io.Writer, r *probes.Report) error {
	var text []byte
	say := func(name, state, without, next string) {
		text = fmt.Appendf(text, "  %s (%s)\n    without it: %s\n", name, state, without)
		if next != "" {
			text = fmt.Appendf(text, "    next: %s\n", next)
		}
	}
	for _, f := range r.Features {
		if f.State == probes.No { // of what is denied the capabilities tell
			say(f.Name, string(f.State), f.Without, f.Next)
		}
	}
	for _, c := range r.Capabilities {
		if c.Without != "" {
			say(c.Name, "missing", c.Without, c.Next)
		}
	}
	if len(text) > 0 {
		text = append([]byte("\nMISSING\n"), text...)
	}
	switch {
	case !r.Usable():
		text = append(text, "\nnothing can be captured\n"...)
	case len(text) > 0:
		text = append(text, "\ntollwire run works, with the limits above\n"...)
	default:
		text = append(text, "\nnothing is missing\n"...)
	}
	_, err := out.Write(text)
	return err
}
