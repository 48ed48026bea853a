"""What two reports differ in: figures, then modules of the same role, then ops. Works on documents, without torch."""
