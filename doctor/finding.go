package doctor

import (
	"fmt"
	"strings"

	"flanneld/api"
)

// Verdict is how a check went.
type Verdict string

// The verdicts.
const (
	Good    Verdict = "ok"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
	Skipped Verdict = "skipped" // what the check needs is not there
)

// Finding is the result of one check.
type Finding struct {
	Check    string  `json:"check"`
	Result   Verdict `json:"result"`
	Evidence string  `json:"evidence"`
	Fix      string  `json:"fix,omitempty"` // the command that repairs it, or what to do

	// Repair are the commands of Fix that may be run without asking; none: only a person should do it.
	Repair [][]string `json:"-"`
}

// safe turns commands into the fix of a finding that may be run without asking. The commands are split at blanks.
func (f Finding) safe(commands ...string) Finding {
	f.Fix = strings.Join(commands, " && ")
	for _, c := range commands {
		f.Repair = append(f.Repair, strings.Fields(c))
	}
	return f
}

func pass(format string, args ...any) Finding {
	return Finding{Result: Good, Evidence: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) Finding {
	return Finding{Result: Skipped, Evidence: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) Finding {
	return Finding{Result: Warning, Evidence: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(fix, format string, args ...any) Finding {
	return Finding{Result: Failure, Evidence: fmt.Sprintf(format, args...), Fix: fix}
}

// count puts a number before a noun.
func count(n int, noun string) string { return api.Count(uint64(n), noun) }

// some lists the first few of many.
func some(lines []string) string {
	const most = 3
	text := strings.Join(lines[:min(len(lines), most)], "; ")
	if len(lines) > most {
		text += fmt.Sprintf("; and %d more", len(lines)-most)
	}
	return text
}

// list joins values.
func list[T any](values []T) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = fmt.Sprint(v)
	}
	return strings.Join(text, ", ")
}

// oneLine is the text of an error that joins several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
