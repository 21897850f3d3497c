package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// PodImage is the name of the image that PodArchive returns.
const PodImage = "flanneld.test/pod:1"

// PodArchive returns an image with busybox in it that sleeps, in the form of "docker save".
func PodArchive() ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	return Image{Name: PodImage, Files: map[string]string{"bin/busybox": busybox},
		Entrypoint: []string{"/bin/busybox", "sleep", "86400"}}.Archive()
}

// Image is one made of programs and files of this machine.
type Image struct {
	Name       string
	Files      map[string]string // path in the image, without the first slash: file here; libraries of programs are added
	Entrypoint []string
}

// Archive returns the image in the form of "docker save".
func (i Image) Archive() ([]byte, error) {
	files := maps.Clone(i.Files)
	for _, path := range i.Files {
		out, _ := exec.Command("ldd", path).Output() // fails if it is static
		for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
			files[strings.TrimPrefix(lib, "/")] = lib
		}
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, name := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		if err := addFile(w, name, text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return i.around(layer.Bytes())
}

// around returns the image whose only layer is given.
func (i Image) around(layer []byte) ([]byte, error) {
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.Entrypoint,
			"Env": []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{i.Name},
		"Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err = errors.Join(addFile(w, "manifest.json", manifest), addFile(w, "config.json", config),
		addFile(w, "layer.tar", layer), w.Close())
	return out.Bytes(), err
}

func addFile(w *tar.Writer, name string, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := io.Copy(w, bytes.NewReader(text))
	return err
}
