package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"

	"flanneld/api"
)

// page is what commands print for people. Nothing reaches a terminal but through its methods, which clean every
// value: names, records and messages come from other hosts.
type page struct{ columns *tabwriter.Writer }

// row writes one line of a table.
func (p page) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = clean(fmt.Sprint(c)); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(p.columns, strings.Join(text, "\t"))
}

// line writes one line that is no row of a table.
func (p page) line(format string, args ...any) {
	fmt.Fprintln(p.columns, clean(fmt.Sprintf(format, args...)))
}

// below writes a line that belongs to the row above it, in a column of that row.
func (p page) below(column int, text string) {
	fmt.Fprintln(p.columns, strings.Repeat("\t", column)+clean(text))
}

// block writes text that has lines of its own.
func (p page) block(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(p.columns, cleanLine(strings.TrimRight(line, "\n")))
	}
}

// wider puts the columns that only -o wide shows before the last one.
func (a *app) wider(cells []any, more ...any) []any {
	if a.output == "wide" {
		return append(cells, more...)
	}
	return append(cells, more[len(more)-1])
}

// print writes v for programs, or calls table for people.
func (a *app) print(v any, table func(p page)) error {
	switch a.output {
	case "json":
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = a.out.Write(append(escapeJSON(text), '\n'))
		return err
	case "yaml":
		text, err := yamlOf(v)
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	}
	return writePage(a.out, table)
}

// yamlOf returns what JSON says of v, as YAML. Every JSON text is one of YAML.
func yamlOf(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var fields any
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	return yaml.Marshal(fields)
}

// clearScreen makes room for the next print: on a terminal an empty screen, elsewhere an empty line between two.
func (a *app) clearScreen(again bool) error {
	text := ""
	if file, ok := a.out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			text = "\x1b[H\x1b[2J"
		}
	}
	if text == "" && again && a.tables() {
		text = "\n"
	}
	return a.write(text)
}

// tables reports whether the output is for people.
func (a *app) tables() bool { return a.output == "table" || a.output == "wide" }

// write prints text that a program has asked for.
func (a *app) write(text string) error {
	_, err := io.WriteString(a.out, text)
	return err
}

func writePage(w io.Writer, fill func(p page)) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fill(page{columns})
	return columns.Flush()
}

// maxCell bounds one value, in runes: host names and identities of records may be of any length.
const maxCell = 1000

// clean makes text safe for a terminal, in one line: control characters (escape sequences, line breaks), marks that
// change the direction of writing, and invisible characters are written as Go escapes such as \x1b.
func clean(text string) string {
	if len(text) > maxCell {
		if runes := []rune(text); len(runes) > maxCell {
			text = string(runes[:maxCell]) + "…"
		}
	}
	return cleanLine(text)
}

// cleanLine is clean without a limit.
func cleanLine(text string) string {
	if !strings.ContainsFunc(text, unsafeRune) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		if !unsafeRune(r) {
			b.WriteRune(r)
			continue
		}
		if _, size := utf8.DecodeRuneInString(text[i:]); r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, text[i])
			continue
		}
		quoted := fmt.Sprintf("%+q", r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

func unsafeRune(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// cleanText is cleanLine for a message of several lines. All but the first are indented, so that none looks like a
// message of its own.
func cleanText(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := range lines {
		lines[i] = cleanLine(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// escapeJSON writes what a terminal would obey as \u escapes. They mean the same, and stand in strings only.
func escapeJSON(text []byte) []byte {
	unsafe := func(r rune) bool { return r != '\n' && r != utf8.RuneError && unsafeRune(r) }
	if bytes.IndexFunc(text, unsafe) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case !unsafe(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// printError prints an error for people, with what to do.
func printError(w io.Writer, err error) {
	fmt.Fprintln(w, "flannelctl:", cleanText(err.Error()))
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		fmt.Fprintln(w, "hint: run flannelctl as root; the daemon's socket and state are for root only")
	case errors.Is(err, api.ErrNoDaemon):
		fmt.Fprintln(w, "hint: flanneld does not run, or it has another --subnet-file;",
			"\"flannelctl doctor\" works without a daemon")
	}
}

// list joins values for a cell.
func list[T any](values []T) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = fmt.Sprint(v)
	}
	return strings.Join(text, ", ")
}

// yes says yes or no.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ago says how long ago something was.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

func splitComma(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		out = append(out, strings.TrimSpace(part))
	}
	return out
}

// plural counts things.
func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case n == 0:
		return "no " + noun + "s"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
