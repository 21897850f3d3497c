package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// version is what this commit is called.
type version struct {
	git     string // as git describes it, and as the programs print it
	upgrade string // as package managers compare it
	commit  string // its hash; empty: not known
}

// tag returns the version in the characters that a tag of an image may have.
func (v version) tag() string { return strings.NewReplacer("~", "-", "+", "-").Replace(v.upgrade) }

var tagged = regexp.MustCompile(`^v?(\d+(?:\.\d+)*)(?:-(rc\.?\d+|alpha\.?\d+|beta\.?\d+))?(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)

// versionOf returns the version and the time of the commit, or those that the caller and SOURCE_DATE_EPOCH ask for.
func versionOf(ctx context.Context, root, describe string) (version, time.Time, error) {
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		out, err := git(ctx, root, "log", "-1", "--format=%ct")
		if err != nil {
			return version{}, time.Time{}, err
		}
		seconds = out
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return version{}, time.Time{}, fmt.Errorf("time of the commit: %w", err)
	}
	at := time.Unix(n, 0).UTC()
	if describe == "" {
		if describe, err = git(ctx, root, "describe", "--tags", "--always", "--dirty"); err != nil {
			return version{}, time.Time{}, err
		}
	}
	return version{git: describe, upgrade: upgradeVersion(describe, at)}, at, nil
}

// upgradeVersion turns a description by git into a version that package managers order as time does: a release
// candidate comes before its release, a commit after a tag behind it, and what has no tag at all before every release.
// It has no dash, which ends a version for both kinds of package.
func upgradeVersion(describe string, at time.Time) string {
	m := tagged.FindStringSubmatch(describe)
	if m == nil {
		return "0.0.0~git" + at.Format("20060102150405") + "." + strings.ReplaceAll(describe, "-", ".")
	}
	v := m[1]
	if m[2] != "" {
		v += "~" + m[2]
	}
	if m[3] != "" {
		v += "+" + m[3] + ".g" + m[4]
	}
	if m[5] != "" {
		v += "+dirty"
	}
	return v
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}
