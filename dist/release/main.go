// Command release builds everything that a version of flanneld is published as: packages for Debian and for the Red Hat
// family, archives, a container image, the Helm chart, bills of materials, release notes and signed checksums. Two runs
// on one commit make the same bytes.
//
// It is a module of its own so that the daemon's does not depend on its libraries.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// release is one run.
type release struct {
	root    string // of the repository
	out     string
	version version
	time    time.Time // of everything that has a time
	arches  []string
	kinds   []string        // of what is built
	key     *openpgp.Entity // signs checksums, rpms and repositories; nil: nothing is signed
	url     string          // where the repositories will be served; empty: not known
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// usualKinds are what a release has; with a key, also the repositories.
const usualKinds = "deb,rpm,archive,bill,image,docker,chart,notes"

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("release", flag.ExitOnError)
	root := fs.String("root", "../..", "the repository's `folder`")
	out := fs.String("o", "", "`folder` to build in, emptied first (default build/release in the repository)")
	arches := fs.String("arch", "amd64,arm64", "comma-separated `architectures`")
	describe := fs.String("version", "", "`version`, in the form of git describe (default: what that says)")
	commit := fs.String("commit", "", "`hash` of the commit that the programs name (default: what git says)")
	kinds := fs.String("kinds", usualKinds,
		"comma-separated `kinds` of what to build; apt and yum are more, the default with a key")
	key := fs.String("sign-key", "", "`file` with the OpenPGP key that signs checksums, rpms and repositories, armored, "+
		"without passphrase")
	url := fs.String("url", "", "`URL` below which the repositories are to be served; without it there is no flanneld.repo")
	printVersion := fs.Bool("print-version", false, "print the version of the packages, build nothing")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	r := release{root: dir, out: *out, arches: strings.Split(*arches, ","), kinds: strings.Split(*kinds, ","), url: *url}
	if r.out == "" {
		r.out = filepath.Join(dir, "build/release")
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if r.version, r.time, err = versionOf(ctx, dir, *describe); err != nil {
		return err
	}
	if *printVersion {
		fmt.Println(r.version.upgrade)
		return nil
	}
	if r.version.commit = *commit; r.version.commit == "" {
		r.version.commit, _ = git(ctx, dir, "rev-parse", "HEAD") // not known outside a repository
	}
	if *key != "" {
		if r.key, err = readKey(*key); err != nil {
			return err
		}
		if *kinds == usualKinds {
			r.kinds = append(r.kinds, "apt", "yum")
		}
	}
	return r.build(ctx)
}

// build makes all files, and SUMS of those that are published.
func (r release) build(ctx context.Context) error {
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	manual, err := r.buildManual(ctx)
	if err != nil {
		return err
	}
	stages := map[string]stage{}
	for _, arch := range r.arches {
		s, err := r.buildStage(ctx, arch, manual)
		if err != nil {
			return err
		}
		stages[arch] = s
		if err := r.publish(s); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
	}
	image := func() error { return r.writeImage(stages) }
	for kind, write := range map[string]func() error{"image": image, "chart": r.writeChart, "notes": r.writeNotes,
		"apt": r.writeApt, "yum": r.writeYum} {
		if !r.builds(kind) {
			continue
		}
		if err := write(); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return r.writeSums()
}

func (r release) builds(kind string) bool { return slices.Contains(r.kinds, kind) }

// publish makes everything of one architecture but its part of the image.
func (r release) publish(s stage) error {
	for _, p := range packages(s) {
		for _, format := range []string{"deb", "rpm"} {
			if !r.builds(format) {
				continue
			}
			if err := r.writePackage(s, p, format); err != nil {
				return fmt.Errorf("%s of %s: %w", format, p.name, err)
			}
		}
	}
	for kind, write := range map[string]func(stage) error{
		"archive": r.writeArchive, "bill": r.writeBill, "docker": r.writeDocker,
	} {
		if !r.builds(kind) {
			continue
		}
		if err := write(s); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}
