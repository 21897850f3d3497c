package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const imageName = "flanneld"

// layers are the files of the image. What an init container copies to the host is a layer of its own.
func layers(s stage) [][]item {
	return [][]item{
		{program(s.dir+"/flannelctl", "/usr/bin/flannelctl"), program(s.dir+"/flanneld", "/usr/bin/flanneld")},
		{
			program(s.dir+"/flannel", "/opt/cni/bin/flannel"),
			program(s.dir+"/install-cni", "/usr/bin/install-cni"),
		},
	}
}

// writeImage makes the image of all architectures as an OCI layout, in a folder and as the archive that container
// engines load.
func (r release) writeImage(stages map[string]stage) error {
	dir := filepath.Join(r.out, "image")
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range r.arches {
		image, err := r.image(stages[arch])
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	names := map[string]string{
		"org.opencontainers.image.ref.name": r.version.tag(),
		"io.containerd.image.name":          "localhost/" + imageName + ":" + r.version.tag(),
	}
	if err := target.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	return r.packLayout(dir)
}

// image returns the image of one architecture.
func (r release) image(s stage) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, items := range layers(s) {
		var b bytes.Buffer
		if err := writeTar(&b, of(items, ""), r.time); err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b.Bytes())), nil
		}, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		if image, err = mutate.Append(image,
			mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.time},
				CreatedBy: imageName}}); err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", s.arch, v1.Time{Time: r.time}
	file.Config = v1.Config{
		Entrypoint: []string{"/usr/bin/flanneld"},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels: map[string]string{
			"org.opencontainers.image.title": imageName, "org.opencontainers.image.version": r.version.git,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return mutate.ConfigFile(image, file)
}

// packLayout writes the archive of a layout.
func (r release) packLayout(dir string) (err error) {
	var items []item
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		items = append(items, plain(p, "/"+filepath.ToSlash(rel)))
		return err
	})
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(r.out, fmt.Sprintf("flanneld-%s-image.tar", r.version.upgrade)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return writeTar(f, of(items, ""), r.time)
}
