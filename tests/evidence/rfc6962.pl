# RFC 6962, section 2.1, in another language than the program.
#
# Each line of the input is a tree: the index of a leaf, then the leaves, each x and hexadecimal
# digits.  Each line of the output is its root, then the path of that leaf.
use strict;
use warnings;
use Digest::SHA qw(sha256);

sub split_at {    # the largest power of two smaller than n
    my ($n) = @_;
    my $k = 1;
    $k *= 2 while $k * 2 < $n;
    return $k;
}

sub mth {
    my @leaves = @_;
    return sha256('') unless @leaves;
    return sha256("\x00" . $leaves[0]) if @leaves == 1;
    my $k = split_at(scalar @leaves);
    return sha256("\x01" . mth(@leaves[0 .. $k - 1]) . mth(@leaves[$k .. $#leaves]));
}

sub path {
    my ($m, @leaves) = @_;
    return () if @leaves == 1;
    my $k = split_at(scalar @leaves);
    return (path($m, @leaves[0 .. $k - 1]), mth(@leaves[$k .. $#leaves])) if $m < $k;
    return (path($m - $k, @leaves[$k .. $#leaves]), mth(@leaves[0 .. $k - 1]));
}

while (my $line = <STDIN>) {
    chomp $line;
    my ($index, @leaves) = split / /, $line;
    @leaves = map { pack 'H*', substr $_, 1 } @leaves;
    print join(' ', map { unpack 'H*', $_ } mth(@leaves), path($index, @leaves)), "\n";
}
