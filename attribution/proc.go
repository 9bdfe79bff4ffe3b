package attribution

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/flow"
)

// errGone is returned when a process has ended, or its id is another's by now.
var errGone = errors.New("process is gone")

// nsPerTick is the length of the ticks that /proc/PID/stat counts in: USER_HZ is
// 100 on every architecture that this agent runs on.
const nsPerTick = 1e9 / 100

// Bounds of what is read of one process.
const (
	maxCommandLine = 4 << 10
	maxEnviron     = 256 << 10
)

// process is what is known of one process. It does not change once it is made.
type process struct {
	source  string // Owner.Source
	zombie  bool   // dead, not yet reaped: most of it can no longer be read
	exe     string // base name
	exePath string // as the process itself sees it; "" when it may not be read
	// commands are the patterns of rules that its command line matches, with the values
	// of their groups. The line itself may hold secrets, and is not kept.
	commands map[string]map[string]string
	place    place
	env      resource       // what the process says of itself
	files    *containerFile // what the runtime wrote of its container; nil when nothing
}

// readProcess reads /proc/PID of the process that p names, and of no other: the
// directory is held open, so that what is read after its start time was compared
// belongs to the same process. Its command line is held against commands.
func readProcess(proc string, p flow.Proc, environ bool, commands []pattern) (*process, []hierarchy, error) {
	dir, err := os.OpenRoot(path.Join(proc, strconv.FormatUint(uint64(p.PID), 10)))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, errGone
		}
		return nil, nil, fmt.Errorf("open process: %w", err)
	}
	defer dir.Close()
	stat, err := readSome(dir, "stat", 4<<10)
	if err != nil {
		return nil, nil, errGone
	}
	st, err := parseStat(string(stat))
	if err != nil {
		return nil, nil, err
	}
	if p.Start != 0 && st.start != p.Start/nsPerTick {
		return nil, nil, errGone
	}
	pr := &process{source: "proc", zombie: st.state == 'Z' || st.state == 'X'}
	text, err := readSome(dir, "cgroup", maxCgroupFile)
	if err != nil {
		return nil, nil, errGone
	}
	// A zombie has neither; a process of another user may keep its exe to itself.
	if exe, err := dir.Readlink("exe"); err == nil {
		pr.exePath = strings.TrimSuffix(exe, " (deleted)")
	}
	var command string // arguments, one space between them
	if len(commands) > 0 || pr.exePath == "" {
		if args, err := readSome(dir, "cmdline", maxCommandLine); err == nil {
			command = clean(strings.TrimRight(strings.ReplaceAll(string(args), "\x00", " "), " "), maxCommandLine)
		}
	}
	for i := range commands {
		vars := make(map[string]string)
		if command != "" && commands[i].match(command, vars) {
			if pr.commands == nil {
				pr.commands = make(map[string]map[string]string)
			}
			pr.commands[commands[i].text] = vars
		}
	}
	pr.exe = executable(pr.exePath, st.comm, command)
	if environ {
		if env, err := readSome(dir, "environ", maxEnviron); err == nil {
			pr.env = environResource(string(env))
		}
	}
	return pr, parseCgroup(string(text)), nil
}

// executable returns process.executable.name: the base name of the executable, or
// where that may not be read, the first argument's when it begins as the
// kernel's 15 characters do, else those.
func executable(exePath, comm, command string) string {
	if exePath != "" {
		return clean(path.Base(exePath), maxName)
	}
	first, _, _ := strings.Cut(command, " ")
	if base := path.Base(first); first != "" && strings.HasPrefix(base, comm) {
		return strings.Clone(clean(base, maxName)) // and no more of the line
	}
	return clean(comm, maxName)
}

// procStat is what is used of /proc/PID/stat.
type procStat struct {
	comm  string
	state byte
	start uint64 // field 22: ticks since boot, of task_struct.start_boottime
}

// parseStat reads /proc/PID/stat. comm may hold spaces and parentheses; the last
// one closes it.
func parseStat(s string) (procStat, error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("parse stat: no (comm)")
	}
	fields := strings.Fields(s[end+1:])
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("parse stat: %d fields after (comm), want at least 20", len(fields))
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("parse stat: start time: %w", err)
	}
	return procStat{comm: s[open+1 : end], state: fields[0][0], start: start}, nil
}

// readSome reads at most limit bytes of a file.
func readSome(dir *os.Root, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
