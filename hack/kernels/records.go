package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// records are the results of jobs on a kernel, of this run and of those before with the same programs.
type records struct {
	dir     string
	jobs    []job
	states  map[string]string // by job: what it runs, on which kernel
	results map[string]result // by job
}

// record is the file NAME.result in the folder of a kernel.
type record struct {
	State string
	result
}

// openRecords reads what has passed before.
func openRecords(dir string, k kernel, jobs []job) (*records, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &records{dir: dir, jobs: jobs, states: map[string]string{}, results: map[string]result{}}
	for _, j := range jobs {
		state, err := stateOf(k, j)
		if err != nil {
			return nil, err
		}
		r.states[j.Name] = state
		var before record
		text, err := os.ReadFile(r.file(j.Name))
		if err == nil && json.Unmarshal(text, &before) == nil && before.State == state && before.Error == "" {
			r.results[j.Name] = before.result
		}
	}
	return r, nil
}

func (r *records) file(name string) string { return filepath.Join(r.dir, name+".result") }

// due returns the jobs that have no result.
func (r *records) due() (out []job) {
	for _, j := range r.jobs {
		if _, ok := r.results[j.Name]; !ok {
			out = append(out, j)
		}
	}
	return out
}

// add takes results in, and writes them down.
func (r *records) add(results []result) error {
	var errs []error
	for _, one := range results {
		r.results[one.Name] = one
		text, err := json.Marshal(record{r.states[one.Name], one})
		errs = append(errs, err, os.WriteFile(r.file(one.Name), text, 0o644))
	}
	return errors.Join(errs...)
}

// stateOf returns a text that changes with the kernel, with the programs that a job runs, and with how it runs them.
func stateOf(k kernel, j job) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, k.name, j.Command, j.Env)
	for _, name := range j.Programs {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// column is what a kernel has in the table.
type column struct {
	kernel  string
	results map[string]result // by job
}

// report prints a table of all kernels, and reports whether all jobs passed.
func report(w io.Writer, jobs []job, columns []column) (ok bool) {
	ok = true
	line := fmt.Sprintf("\n%-22s", "suite")
	for _, c := range columns {
		line += fmt.Sprintf(" %-24s", c.kernel)
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
	var failed []string
	for _, j := range jobs {
		line := fmt.Sprintf("%-22s", j.Name)
		for _, c := range columns {
			r, ran := c.results[j.Name]
			text := fmt.Sprintf("passed  %5.0f s", r.Seconds)
			switch {
			case !ran:
				text = "not run"
			case r.Error != "":
				text = fmt.Sprintf("FAILED  %5.0f s", r.Seconds)
				failed = append(failed, fmt.Sprintf("%s on %s: %s", j.Name, c.kernel, r.Error))
			}
			ok = ok && ran && r.Error == ""
			line += fmt.Sprintf(" %-24s", text)
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	slices.Sort(failed)
	for _, text := range failed {
		fmt.Fprintln(w, text)
	}
	return ok
}
