// Command signatures proposes the signatures of functions from published binaries,
// and checks a set of them against a folder of binaries.
package main

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/probes/signature"
)

func main() {
	root := &cobra.Command{
		Use: "signatures", Short: "Signatures of the assembly that stripped TLS libraries encrypt with",
		SilenceUsage: true,
	}
	root.AddCommand(propose(), check())
	if root.Execute() != nil {
		os.Exit(1)
	}
}

func propose() *cobra.Command {
	var s signature.Signature
	var offset, role string
	var parts, from []string
	cmd := &cobra.Command{
		Use:   "propose BINARY",
		Short: "Print a signature of the function at an offset of a binary",
		Long: `Prints a signature as JSON, to be added to signatures.json. The function's code is
taken in parts, each FROM+LENGTH in bytes from its start; what lies between them is
left open, and so are the addresses that the linker fills in. The signature must
match exactly once in the binary. Needs objdump.`,
		Example: "  signatures propose bun --offset 0x258f800 --name aes_gcm_enc_update_vaes_avx2 --role seal \\\n    --library boringssl --variant vaes-avx2 --part 0+400 --from @oven/bun-linux-x64@1.4.5",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := strconv.ParseUint(offset, 0, 63)
			if err != nil {
				return fmt.Errorf("--offset: %w", err)
			}
			var take []signature.Part
			for _, p := range parts {
				var one signature.Part
				if _, err := fmt.Sscanf(p, "%v+%v", &one.From, &one.Length); err != nil {
					return fmt.Errorf("--part %q: want FROM+LENGTH", p)
				}
				take = append(take, one)
			}
			s.Role, s.From = signature.Role(role), from
			if err := s.Propose(args[0], at, take); err != nil {
				return err
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "\t")
			return e.Encode(&s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&offset, "offset", "", "of the function in the file")
	f.StringVar(&s.Name, "name", "", "of the function in its library's source")
	f.StringVar(&s.Library, "library", "", "boringssl, aws-lc or ring")
	f.StringVar(&s.Build, "build", "", "of the library, where its functions differ from another build's")
	f.StringVar(&s.Variant, "variant", "", "of the CPU, e.g. vaes-avx2")
	f.StringVar(&s.Arch, "arch", "amd64", "amd64 or arm64")
	f.StringVar(&role, "role", "", "what the function does: multiply, hash, seal, open, counter, seal-bits, open-bits, seal-all, open-all, chacha-seal, chacha-open")
	f.IntVar(&s.Probe, "probe", 0, "where its arguments can be read, in bytes from its start")
	f.StringArrayVar(&parts, "part", []string{"0+256"}, "code to take, FROM+LENGTH")
	f.StringArrayVar(&from, "from", nil, "the published binary: package@version")
	return cmd
}

func check() *cobra.Command {
	var set string
	cmd := &cobra.Command{
		Use:   "check FILE-OR-FOLDER...",
		Short: "Say which signatures match in each ELF executable",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := signature.Published()
			if set != "" {
				b, readErr := os.ReadFile(set)
				if readErr != nil {
					return readErr
				}
				all, err = signature.Read(b)
			}
			if err != nil {
				return err
			}
			for _, arg := range args {
				err := filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
					if err != nil || !d.Type().IsRegular() {
						return err
					}
					return checkFile(cmd, all, path)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&set, "set", "", "signatures to check; default those that tollwire has")
	return cmd
}

// machines are the architectures that there are signatures of.
var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

func checkFile(cmd *cobra.Command, all signature.Set, path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return nil // no ELF file
	}
	defer f.Close()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	matches, refused, err := all.For(machines[f.Machine]).Find(file, signature.Code(f), func(int) error { return nil })
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var lines []string
	for _, m := range matches {
		lines = append(lines, fmt.Sprintf("  %#-12x %v", m.Offset, m.Signature))
	}
	for name, why := range refused {
		lines = append(lines, fmt.Sprintf("  refused      %s: %v", name, why))
	}
	slices.Sort(lines)
	if len(lines) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", path, strings.Join(lines, "\n"))
	}
	return nil
}
