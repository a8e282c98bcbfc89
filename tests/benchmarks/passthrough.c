/* A read-only passthrough: what libfuse costs in C, for machines without libfuse's own example.
 *
 *     passthrough SOURCE MOUNTPOINT
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int root;

/* Paths arrive with a leading slash; below `root` they are relative. */
static const char *below(const char *path) { return path[1] ? path + 1 : "."; }

static void *start(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->kernel_cache = 1;
	config->entry_timeout = config->attr_timeout = 3600;
	return NULL;
}

static int attributes(const char *path, struct stat *out, struct fuse_file_info *info)
{
	(void)info;
	return fstatat(root, below(path), out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int list(const char *path, void *out, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
		enum fuse_readdir_flags flags)
{
	int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	(void)offset, (void)info, (void)flags;
	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		if (fill(out, entry->d_name, NULL, 0, 0))
			break;
	closedir(directory);
	return 0;
}

static int opened(const char *path, struct fuse_file_info *info)
{
	int fd = openat(root, below(path), O_RDONLY);

	if (fd < 0)
		return -errno;
	info->fh = fd;
	return 0;
}

static int get(const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *info)
{
	ssize_t got = pread(info->fh, out, size, offset);

	(void)path;
	return got < 0 ? -errno : (int)got;
}

static int closed(const char *path, struct fuse_file_info *info)
{
	(void)path;
	close(info->fh);
	return 0;
}

static const struct fuse_operations operations = {
	.init = start, .getattr = attributes, .readdir = list, .open = opened, .read = get, .release = closed,
};

int main(int argc, char **argv)
{
	char *arguments[] = {argv[0], "-f", argc == 3 ? argv[2] : NULL, NULL};

	if (argc != 3 || (root = open(argv[1], O_RDONLY | O_DIRECTORY)) < 0) {
		fprintf(stderr, "usage: passthrough SOURCE MOUNTPOINT\n");
		return 2;
	}
	return fuse_main(3, arguments, &operations, NULL);
}
