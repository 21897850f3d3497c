package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs in a namespace.
type Process struct {
	Started time.Time
	cmd     *exec.Cmd
	logFile string
	done    chan struct{} // closed when it has ended
}

// start runs a program, its output appended to a log file.
func (n *Namespace) start(logFile string, env []string, args ...string) (*Process, error) {
	return n.startWith(logFile, env, nil, args...)
}

// startWith also hands files to the program, as its descriptors from 3 on.
func (n *Namespace) startWith(logFile string, env []string, files []*os.File, args ...string) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o755); err != nil {
		return nil, fmt.Errorf("create log folder: %w", err)
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	p := &Process{cmd: exec.Command(args[0], args[1:]...), logFile: logFile, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = log, log, files
	// What it leaves, such as the stacks of a containerd that docker is tired of waiting for, goes with the lab.
	p.cmd.Env = append(append(os.Environ(), "TMPDIR="+filepath.Dir(logFile)), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the lab alone
	p.Started = time.Now()
	if err := n.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	go func() {
		_ = p.cmd.Wait() // its state is read from the command
		close(p.done)
	}()
	return p, nil
}

// Start runs a program in the namespace until it ends by itself, is stopped, or the lab closes. name is that of its log
// file.
func (h *Host) Start(name string, args ...string) (*Process, error) {
	return h.start(filepath.Join(h.dir, name+".log"), nil, args...)
}

// Log returns all that the program has printed, and those before it with the same log file.
func (p *Process) Log() string {
	text, _ := os.ReadFile(p.logFile)
	return string(text)
}

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns the exit code once the process has ended, -1 after a signal.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the end of %s: %w", filepath.Base(p.cmd.Path), ctx.Err())
	}
}

// Stop asks the process to end, as systemd does, and waits for it. It is an error if it does not end cleanly.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with exit code %d:\n%s", filepath.Base(p.cmd.Path), code, lastLines(p.Log(), 10))
	}
	return err
}

// Kill ends the process without a warning and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
