package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/pricing"
)

// ErrFindings is returned by `prices lint --strict` when there are warnings, which
// have been printed.
var ErrFindings = errors.New("the price book has warnings")

// Prices is `tollwire prices` with its subcommands.
func Prices() *cobra.Command {
	c := &cobra.Command{
		Use:   "prices",
		Short: "Check, compare, read and import price books",
	}
	c.AddCommand(lintCommand(), diffCommand(), showCommand(), importCommand())
	return c
}

// Book reads the files over the embedded book, or without it.
func Book(alone bool, files ...string) (*pricing.Book, error) {
	if alone {
		return pricing.Load(files...)
	}
	return pricing.Overlaid(files...)
}

func lintCommand() *cobra.Command {
	var alone, strict bool
	c := &cobra.Command{
		Use:   "lint [FILE]...",
		Short: "Read books as the agent does, and warn of prices that look wrong",
		Long: `Reads the files, each laid over the ones before it and all over the book inside, as the
agent does. A book that the agent would refuse is an error, with every fault's line and
reason. Prices that look wrong (output cheaper than the cache, a hundred times the rest
of the family) are warnings.`,
		RunE: func(cmd *cobra.Command, files []string) error {
			b, err := Book(alone, files...)
			if err != nil {
				return err
			}
			return Lint(cmd.OutOrStdout(), b, strict, files)
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "without the book inside")
	c.Flags().BoolVar(&strict, "strict", false, "fail when there are warnings")
	return c
}

// Lint prints the warnings of what stands in files (of everything, when there are
// none) and one closing line.
func Lint(w io.Writer, b *pricing.Book, strict bool, files []string) error {
	n := 0
	for _, warning := range b.Lint() {
		if len(files) > 0 && !slices.Contains(files, warning.File) {
			continue
		}
		n++
		fmt.Fprintln(w, warning)
	}
	fmt.Fprintf(w, "price book %s: %d models, %d warnings\n", b.Version(), b.Models(), n)
	if strict && n > 0 {
		return ErrFindings
	}
	return nil
}

func diffCommand() *cobra.Command {
	var alone bool
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Print what two books say differently, model by model",
		Long:  `Both are laid over the book inside. OLD may be "-" for the book inside as it is.`,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, files []string) error {
			var books [2]*pricing.Book
			for i, file := range files {
				var err error
				if file == "-" {
					books[i], err = pricing.Default()
				} else {
					books[i], err = Book(alone, file)
				}
				if err != nil {
					return err
				}
			}
			return Diff(cmd.OutOrStdout(), books[0], books[1])
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "without the book inside")
	return c
}

// Diff prints the changes from a to b.
func Diff(w io.Writer, a, b *pricing.Book) error {
	changes := pricing.Diff(a, b)
	for _, c := range changes {
		fmt.Fprintln(w, c.Where)
		for _, line := range c.Old {
			if !slices.Contains(c.New, line) {
				fmt.Fprintf(w, "  - %s\n", line)
			}
		}
		for _, line := range c.New {
			if !slices.Contains(c.Old, line) {
				fmt.Fprintf(w, "  + %s\n", line)
			}
		}
	}
	_, err := fmt.Fprintf(w, "%s to %s: %d changes\n", a.Version(), b.Version(), len(changes))
	return err
}

func showCommand() *cobra.Command {
	var files []string
	var alone bool
	c := &cobra.Command{
		Use:   "show [PROVIDER [MODEL]]",
		Short: "Print the entry that a model's calls are priced by, or a provider's models",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := Book(alone, files...)
			if err != nil {
				return err
			}
			args = append(args, "", "")
			if !b.Show(cmd.OutOrStdout(), args[0], args[1]) {
				return fmt.Errorf("the book knows no %s %s", args[0], args[1])
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&files, "prices", nil, "price book laid over the one inside (repeatable)")
	c.Flags().BoolVar(&alone, "alone", false, "without the book inside")
	return c
}

func importCommand() *cobra.Command {
	var output, date, name string
	c := &cobra.Command{
		Use:   "import KIND FILE|URL|-",
		Short: "Turn another project's price data into a book",
		Long: `Reads price data and writes a book in tollwire's format; what could not be carried over
is reported on stderr. Names and prices are carried over, descriptions are not.

Kinds: genai-prices (format v2 of github.com/pydantic/genai-prices).`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			day := time.Now().UTC()
			if date != "" {
				var err error
				if day, err = time.Parse(time.DateOnly, date); err != nil {
					return fmt.Errorf("date %q: want 2026-01-31", date)
				}
			}
			config := ImportConfig{Kind: args[0], From: args[1], Date: day, Name: name}
			if output == "" {
				return Import(cmd.Context(), config, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			f, err := os.CreateTemp(filepath.Dir(output), ".prices-*")
			if err != nil {
				return fmt.Errorf("write price book: %w", err)
			}
			defer os.Remove(f.Name())
			if err := errors.Join(Import(cmd.Context(), config, f, cmd.ErrOrStderr()), f.Chmod(0o644), f.Close()); err != nil {
				return err
			}
			return os.Rename(f.Name(), output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write; stdout when empty")
	c.Flags().StringVar(&date, "date", "", "day of the data (2026-01-31); today when empty")
	c.Flags().StringVar(&name, "source", "", "what the book says of its source; the file or URL when empty")
	return c
}
